"""TVM module in, bytes of a small shared library out."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import tvm
from tvm.support import cc

from planish.ir.errors import TargetError

from .target import Target

# No start files, no symbol tables, sections side by side in few pages: most of a library of this
# size would be those. Symbols of libc, libm and TVM's runtime are found when it loads.
LINK_OPTIONS = [
    "-nostdlib",
    "-s",
    "-Wl,--gc-sections",
    "-Wl,--build-id=none",
    "-Wl,--hash-style=gnu",
    "-Wl,-z,norelro",
    "-Wl,-z,noseparate-code",
    "-Wl,--exclude-libs,ALL",
]


def compile_library(module: Any, target: Target) -> bytes:
    """Return the shared library of a module.

    Raises:
        TargetError: There is no C++ compiler to link with.
    """
    compiler = cc.get_cc()
    if not compiler or shutil.which(compiler) is None:
        raise TargetError(
            "no C++ compiler found to link the kernels with",
            cure="install g++ (Debian: apt install g++), or name one in the variable CXX; "
            "running a finished artifact needs none",
        )
    executable = _compile(module, target)
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        path = Path(folder) / "kernels.so"
        try:
            executable.export_library(
                str(path), fcompile=cc.create_shared, workspace_dir=folder, options=LINK_OPTIONS
            )
        except RuntimeError as error:
            first = str(error).strip().splitlines()
            raise TargetError(
                f"linking the kernels with {compiler} failed: {first[0] if first else error}",
                cure="check that the compiler works",
            ) from error
        return path.read_bytes()


def assembly(module: Any, target: Target) -> str:
    """Return the assembly text of a module."""
    return _compile(module, target).mod.inspect_source("asm")


def _compile(module: Any, target: Target) -> Any:
    if target.stand_in:
        from .stand_in import plain_module

        module = plain_module(module)
    # The callers check shapes and dtypes; TVM's own checks would be most of the entry's code.
    with tvm.transform.PassContext(config={"tirx.disable_assert": True}):
        return tvm.compile(module, target=tvm.target.Target(target.tvm_target))

"""TVM module in, bytes of a small shared library out."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm.support import cc

from planish.ir.errors import TargetError

from .cpu import machine
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


@dataclass(frozen=True)
class Toolchain:
    """What links code for other machines than this one.

    Attributes:
        cross_compiler: A C++ compiler for the target; by default Debian's for its machine, such as
            "aarch64-linux-gnu-g++".
        sysroot: The target's root folder, for compilers that don't bring their own.
    """

    cross_compiler: str | None = None
    sysroot: str | None = None


def compile_library(module: Any, target: Target, toolchain: Toolchain | None = None) -> bytes:
    """Return the shared library of a module.

    Raises:
        TargetError: There is no C++ compiler to link with, or it fails.
    """
    compiler, link = _linker(target, toolchain or Toolchain())
    executable = _compile(module, target)
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        path = Path(folder) / "kernels.so"
        try:
            executable.export_library(
                str(path), fcompile=link, workspace_dir=folder, options=LINK_OPTIONS
            )
        except RuntimeError as error:
            raise TargetError(
                f"linking the kernels with {compiler} failed: {_complaint(error)}",
                cure="check that the compiler works, and that it is for the target",
            ) from error
        if not path.is_file():
            raise TargetError(
                f"{compiler} wrote no library",
                cure="check that it is a C++ compiler for the target",
            )
        return path.read_bytes()


def _linker(target: Target, toolchain: Toolchain) -> tuple[str, Any]:
    """Return the compiler that links for a target, and TVM's function that calls it."""
    if target.machine == machine() or target.stand_in:
        compiler = cc.get_cc()
        if not compiler or shutil.which(compiler) is None:
            raise TargetError(
                "no C++ compiler found to link the kernels with",
                cure="install g++ (Debian: apt install g++), or name one in the variable CXX; "
                "running a finished artifact needs none",
            )
        return compiler, cc.create_shared
    package = f"g++-{target.machine.replace('_', '-')}-linux-gnu"
    compiler = toolchain.cross_compiler or f"{target.machine}-linux-gnu-g++"
    if shutil.which(compiler) is None:
        raise TargetError(
            f"no compiler {compiler!r} to link code for {target.machine} with",
            where=target.name,
            cure=f"install it (Debian: apt install {package}), or name another one with "
            "--cross-compiler",
        )
    options: list[str] = []
    if toolchain.sysroot is not None:
        if not Path(toolchain.sysroot).is_dir():
            raise TargetError(f"the sysroot {toolchain.sysroot!r} is no folder", where=target.name)
        options.append(f"--sysroot={toolchain.sysroot}")
    return compiler, cc.cross_compiler(compiler, options=options)


def _complaint(error: RuntimeError) -> str:
    """Return the line of a compiler's message that says most: its last error, or its last line."""
    said = str(error).partition("\nCommand line:")[0].splitlines()[1:]  # the first is TVM's heading
    lines = [line.strip() for line in said if line.strip()]
    own = [line for line in lines if "error" in line and not line.startswith("collect2:")]
    return (own or lines or ["it said nothing"])[-1]


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

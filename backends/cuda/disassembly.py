"""What a cubin's kernels became: NVIDIA's own disassembler, read.

`instructions(cubin)["cuda_dense_0"]["IMMA.16832.U8.S8"]` is how often that kernel's code has the
tensor cores' instruction. A dot product of dp4a is an `IDP.4A`.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from planish.ir.errors import TargetError, first_line

_KERNEL = re.compile(r"^\.text\.(\w+):$")
# "/*0010*/  @!P0 IMMA.16832.U8.S8 R4, ... ;": what follows the address and the predicate.
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")


def instructions(content: bytes) -> dict[str, Counter[str]]:
    """Return how often each kernel of a cubin has each instruction.

    Raises:
        TargetError: The disassembler is not installed, or no longer knows the GPU: NVIDIA's
            version 13 reads compute capability 7.5 and later ones.
    """
    found: dict[str, Counter[str]] = {}
    kernel: Counter[str] = Counter()
    for line in _listing(content).splitlines():
        begin = _KERNEL.match(line.strip())
        if begin:
            kernel = found[begin[1]] = Counter()
            continue
        instruction = _INSTRUCTION.search(line)
        if instruction:
            kernel[instruction[1]] += 1
    return found


def _listing(content: bytes) -> str:
    with tempfile.NamedTemporaryFile(prefix="planish-", suffix=".cubin") as file:
        file.write(content)
        file.flush()
        command = [_disassembler(), "-c", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(f"nvdisasm failed: {first_line(RuntimeError(done.stderr))}")
    return done.stdout


def _disassembler() -> str:
    """Return the program's path: the package's, or the one of NVIDIA's toolkit."""
    package = importlib.util.find_spec("nvidia")
    folders = list(package.submodule_search_locations or []) if package else []
    programs = [str(p) for folder in folders for p in Path(folder).glob("*/bin/nvdisasm")]
    found = next(iter(programs), shutil.which("nvdisasm"))
    if found is None:
        raise TargetError(
            "NVIDIA's disassembler is not installed", cure="pip install nvidia-cuda-nvdisasm"
        )
    return found

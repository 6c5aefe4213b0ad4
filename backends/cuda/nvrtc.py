"""CUDA C text in, machine code (a cubin) out: NVIDIA's run-time compiler, on any machine.

NVRTC is a library of its own: it needs neither a GPU nor a driver nor nvcc. It comes as the package
nvidia-cuda-nvrtc-cu12, which `planish[cuda]` brings, or with NVIDIA's toolkit.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from planish.ir.errors import TargetError

# No fused multiply-add and no fast math: the numeric contract names each rounding.
_EXACT = ("-fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false")
OPTIONS = ("--std=c++17", *_EXACT, "--ptxas-options=-v")
_CURE = "pip install 'planish[cuda]', or pip install nvidia-cuda-nvrtc-cu12"
_SUCCESS = 0
_REPORT = re.compile(
    r"Compiling entry function '(\w+)'.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers([^\n]*)",
    re.DOTALL,
)
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Resources:
    """What one kernel takes on a GPU.

    Attributes:
        registers: Of a thread.
        shared: Bytes of a block's static shared memory.
        spilled: Bytes of a thread's registers that are stored to memory and loaded again.
        stack: Bytes of a thread's own memory, spilled registers included.
    """

    registers: int
    shared: int
    spilled: int
    stack: int


@dataclass(frozen=True)
class Cubin:
    """Compiled kernels.

    Attributes:
        content: An ELF file for one compute capability.
        resources: What each kernel takes.
    """

    content: bytes
    resources: dict[str, Resources]


def compile_cubin(text: str, arch: str) -> Cubin:
    """Compile CUDA C text. Equal texts give equal bytes.

    Args:
        text: With its prelude.
        arch: "sm_80".

    Raises:
        TargetError: NVRTC is not installed, is too old for the architecture, or refuses the text.
    """
    nvrtc = _library()
    program = ctypes.c_void_p()
    source = text.encode()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"planish.cu", 0, None, None))
    try:
        options = [f"--gpu-architecture={arch}", *OPTIONS]
        given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        status = nvrtc.nvrtcCompileProgram(program, len(options), given)
        log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        report = log.rstrip(b"\0").decode(errors="replace")
        if status != _SUCCESS:
            raise TargetError(f"NVRTC refuses the kernels: {_first_error(report)}", where=arch)
        content = _read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return Cubin(content, _resources(report))


def version() -> str:
    """Return NVRTC's version, "12.9".

    Raises:
        TargetError: It is not installed.
    """
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


@cache
def _library() -> Any:
    """Load NVRTC, from its package or from where the system has it."""
    try:
        package = importlib.util.find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:  # no package of NVIDIA at all
        package = None
    folders = list(package.submodule_search_locations or []) if package else []
    found = [str(path) for folder in folders for path in Path(folder).glob("lib/libnvrtc.so.*")]
    system = ctypes.util.find_library("nvrtc")
    names = sorted(found) + ([system] if system else [])
    if not names:
        raise TargetError("compiling for a GPU needs NVIDIA's compiler NVRTC", cure=_CURE)
    try:
        return ctypes.CDLL(names[0])
    except OSError as error:
        raise TargetError(f"NVIDIA's NVRTC can't be loaded: {error}", cure=_CURE) from error


def _check(status: int) -> None:
    if status == _SUCCESS:
        return
    name = _library().nvrtcGetErrorString
    name.restype = ctypes.c_char_p
    raise TargetError(f"NVRTC failed: {name(status).decode()}", cure=_CURE)


def _read(size: Callable[..., int], get: Callable[..., int], program: Any) -> bytes:
    """Return what a pair of NVRTC's functions gives: its size, then its bytes."""
    length = ctypes.c_size_t()
    _check(size(program, ctypes.byref(length)))
    buffer = ctypes.create_string_buffer(length.value)
    _check(get(program, buffer))
    return buffer.raw


def _first_error(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "no reason")


def _resources(log: str) -> dict[str, Resources]:
    """Read what the assembler reports of each kernel."""
    found: dict[str, Resources] = {}
    for name, stack, stored, loaded, registers, rest in _REPORT.findall(log):
        shared = _SHARED.search(rest)
        spilled = max(int(stored), int(loaded))
        taken = int(shared[1]) if shared else 0
        found[name] = Resources(int(registers), taken, spilled, int(stack))
    return found

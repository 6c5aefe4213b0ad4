"""The emulator: CUDA C text compiled with g++ and run on the CPU, thread by thread.

It is how kernels are checked where no GPU is: the very text that NVIDIA's compiler gets runs
block by block, each thread a fibre that waits at barriers (`emulator.h`), and the instructions that
a warp executes together are spelled out with the layouts that PTX gives them (`emulated.h`).
Results must equal the reference as those of a GPU do. It says nothing about speed.

It finds more than wrong results: a barrier that not all threads reach, threads of a warp that
wait for different things, addresses that are not as aligned as an instruction needs or outside of
the memory that a launch is told of, indices outside of arrays, and, as asynchronous copies are made
at the last moment that the text allows, what is not waited for. A missing barrier shows as a
difference between the orders in which threads can run.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np

from planish.ir.errors import OptionError, TargetError

_FOLDER = Path(__file__).parent
_OPTIONS = [
    "-std=c++17",
    "-O1",
    "-shared",
    "-fPIC",
    "-Werror=frame-larger-than=49152",  # of a thread's stack, 64 KiB
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fno-ipa-reference",
    "-fwrapv",
    "-fno-stack-protector",
    "-fsanitize=bounds",
]
_INCLUDED = "".join(f'#include "{n}.h"\n' for n in ("emulator", "emulated", "floats"))
_KERNEL = re.compile(
    r'^extern "C" __global__ void (?:__launch_bounds__\(.*?\) )?(\w+)\(([^()]*)\) \{\n(.*?)^\}',
    re.MULTILINE | re.DOTALL,
)
_LAUNCH = """
extern "C" const char* planish_launch(int number, const unsigned* sizes, void** values,
                                      const uintptr_t* ranges, size_t count, int backwards) {
  return planish_emulator::launch(planish_kernels[number], sizes, values, ranges, count, backwards);
}
"""
# What a thread waits for others in.
_WAITING = re.compile(r"\b(__sync\w+|planish_(sync|mma|load_matrices|commit|wait))\b")


# What every GPU allows along x, y and z, and of a block's threads in all.
_LARGEST_GRID = (2**31 - 1, 65535, 65535)
_LARGEST_BLOCK = (1024, 1024, 64)
_MOST_THREADS = 1024


class EmulatedLibrary:
    """The kernels of one text, ready to be launched."""

    def __init__(self, library: ctypes.CDLL, kernels: Mapping[str, int]) -> None:
        """Take a loaded library and its kernels; see `emulate`.

        Args:
            library: As g++ made it.
            kernels: The number of arguments by name, in the order of the library's table.
        """
        self._launch = library.planish_launch
        self._launch.restype = ctypes.c_char_p
        self._numbers = {name: number for number, name in enumerate(kernels)}
        self._counts = kernels

    def launch(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        shared: int,
        arguments: Sequence[Any],
        *,
        memory: Sequence[tuple[int, int]] = (),
        backwards: bool = False,
    ) -> None:
        """Run a kernel and return when it is done.

        Args:
            name: Of the kernel.
            grid: Blocks along x, y and z.
            block: Threads along x, y and z.
            shared: Bytes of dynamic shared memory: 0, planish's kernels have none.
            arguments: A ctypes value each (`c_void_p` for an address), or a NumPy array, int
                (int32) or float (float32).
            memory: Address and bytes of all memory that there is; if it is given, device functions
                that read and write hold their addresses against it.
            backwards: Run the threads of each warp from the last one to the first.

        Raises:
            TargetError: No such kernel, sizes that no GPU launches, another number of arguments
                than the kernel has, an array that is not contiguous, or threads that wait for what
                never comes.
        """
        if name not in self._numbers:
            raise TargetError(f"the text has no kernel {name!r}")
        if shared:
            raise TargetError(f"kernel {name!r} wants dynamic shared memory, which is not emulated")
        if len(arguments) != self._counts[name]:
            raise TargetError(
                f"kernel {name!r} takes {self._counts[name]} arguments, {len(arguments)} are given"
            )
        _check_sizes(name, "grid", grid, _LARGEST_GRID)
        _check_sizes(name, "block", block, _LARGEST_BLOCK)
        values = [_as_argument(argument) for argument in arguments]
        addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        sizes = (ctypes.c_uint * 6)(*_three(grid), *_three(block))
        ranges = (ctypes.c_size_t * (2 * len(memory)))(*(n for pair in memory for n in pair))
        error = self._launch(
            self._numbers[name],
            sizes,
            addresses,
            ranges,
            ctypes.c_size_t(len(memory)),
            int(backwards),
        )
        if error:
            cure = "mend the kernel's barriers or addresses"
            raise TargetError(error.decode(), where=f"kernel {name}", cure=cure)


def emulate(source: str, arch: str = "sm_80") -> EmulatedLibrary:
    """Compile CUDA C text, as `cuda_source` returns it, for this machine's CPU.

    Args:
        source: The text, without a prelude.
        arch: Whose instructions there are: "sm_61" has no tensor cores, copies are asynchronous
            from "sm_80" on.

    Raises:
        TargetError: There is no g++, or it does not take the text.
        OptionError: There is no such `arch`.
    """
    if not re.fullmatch(r"sm_\d+", arch):
        raise OptionError(f"there is no GPU architecture {arch!r}", cure="write it as in 'sm_80'")
    compiler = which("g++")
    if compiler is None:
        cure = "install g++ (Debian: apt install g++)"
        raise TargetError("no g++ found to emulate CUDA kernels with", cure=cure)
    found = list(_KERNEL.finditer(source))
    kernels = {kernel[1]: bool(_WAITING.search(kernel[3])) for kernel in found}
    counts = {kernel[1]: len(kernel[2].split(",")) if kernel[2].strip() else 0 for kernel in found}
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        text, made = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        number = arch.removeprefix("sm_")
        text.write_text(f"#define PLANISH_ARCH {number}\n{_INCLUDED}{source}\n{_table(kernels)}")
        command = [compiler, *_OPTIONS, f"-I{_FOLDER}", str(text), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            raise TargetError(
                f"g++ does not compile the kernels: {(errors or ['it failed'])[0]}",
                cure="a device function that a kernel calls must be in device.h and emulated.h",
            )
        return EmulatedLibrary(ctypes.CDLL(str(made)), counts)


def _table(kernels: dict[str, bool]) -> str:
    """Return the C++ text of the function that launches a kernel by its number."""
    rows = "".join(
        f"  {{[](void** values) {{ planish_emulator::call(&{name}, values); }}, {int(waits)}}},\n"
        for name, waits in kernels.items()
    )
    return f"static const planish_emulator::Kernel planish_kernels[] = {{\n{rows}}};\n{_LAUNCH}"


def _as_argument(value: Any) -> Any:
    """Return an argument as ctypes has it."""
    if isinstance(value, np.ndarray):
        if not value.flags.c_contiguous:
            raise TargetError("an argument is an array that is not contiguous", cure="copy it")
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, int | np.integer):
        return ctypes.c_int32(int(value))
    if isinstance(value, float | np.floating):
        return ctypes.c_float(float(value))
    return value


def _check_sizes(name: str, what: str, sizes: Sequence[int], largest: tuple[int, ...]) -> None:
    """Raise TargetError unless a kernel's grid or block is one that a GPU launches."""
    fits = 1 <= len(sizes) <= len(largest) and all(
        isinstance(size, int | np.integer) and 1 <= size <= most
        for size, most in zip(sizes, largest, strict=False)
    )
    if not fits or (largest is _LARGEST_BLOCK and prod(map(int, sizes)) > _MOST_THREADS):
        raise TargetError(
            f"kernel {name!r} can't be launched with the {what} {list(sizes)}",
            cure=f"give up to three sizes of 1 to {list(largest)}"
            + (f", {_MOST_THREADS} threads in all" if largest is _LARGEST_BLOCK else ""),
        )


def _three(sizes: Sequence[int]) -> tuple[int, ...]:
    return (*sizes, *(1 for _ in range(3 - len(sizes))))

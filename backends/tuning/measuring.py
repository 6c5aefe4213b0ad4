"""Times a kernel beside the rules' own choice, in turns; checks that both give the same numbers.

This runs in a process of its own (`worker`), so that a kernel that crashes or hangs ends no tuning.
On this machine it imports neither torch nor all of TVM: it has begun in half a second. Both kernels
are timed in rounds, one after the other: whatever slows the machine down for a while slows both.

In a network every layer's weights come from beyond the second-level cache, because other layers ran
in between, while its activations were just written. So each call on this machine reads another copy
of the parameters and the same workspace.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..packing import aligned_bytes
from ..runtime import load_ffi, use_threads
from .stored import Stored

# Bytes that copies of the parameters take together: more than second-level caches hold.
WORKING_SET = 8 << 20
# A round is as many calls as take about this long.
ROUND_SECONDS = 0.4e-3
LEAST_ROUNDS = 7


@dataclass(frozen=True)
class Timed:
    """What a measurement says.

    Attributes:
        us: Microseconds of one call, the fastest round.
        base_us: The same of the rules' own choice.
        rounds: How many rounds of each.
        difference: How many values differ between both outputs.
        values: How many there are.
        server: Where it ran: "local", or a server's address.
    """

    us: float
    base_us: float
    rounds: int
    difference: int
    values: int
    server: str = "local"


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        threads: Threads that the kernels use.
        seconds: How long to measure both together.
        tracker: (host, port) of an RPC tracker that lends servers, or None.
        key: Which of the tracker's devices.
        server: (host, port) of the server that measures, or None.
    """

    threads: int
    seconds: float
    tracker: tuple[str, int] | None = None
    key: str = ""
    server: tuple[str, int] | None = None

    @property
    def remote(self) -> bool:
        """Whether another machine measures."""
        return self.tracker is not None or self.server is not None


# Seconds that this many calls take, each with the next copy of the parameters.
Clock = Callable[[int], float]


def in_turns(base: Clock, other: Clock, seconds: float) -> tuple[float, float, int]:
    """Return seconds of one call of each, the fastest round, and the number of rounds."""
    counts = [max(1, int(ROUND_SECONDS / max(clock(1), 1e-7))) for clock in (base, other)]
    best = [float("inf"), float("inf")]
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < LEAST_ROUNDS or time.perf_counter() < end:
        for number, (clock, count) in enumerate(zip((base, other), counts, strict=True)):
            best[number] = min(best[number], clock(count) / count)
        rounds += 1
    return best[0], best[1], rounds


def compared(base: NDArray[Any], other: NDArray[Any]) -> tuple[int, int]:
    """Return how many values differ, and how many there are."""
    return int(np.count_nonzero(base != other)), base.size


def measure_here(folder: str, base_folder: str, settings: Settings) -> Timed:
    """Measure a choice on this machine."""
    if settings.threads > 1:
        use_threads(settings.threads)
    sides = [LocalKernel(Path(place)) for place in (base_folder, folder)]
    outputs = [side.first_output() for side in sides]
    difference, values = compared(*outputs)
    base, other, rounds = in_turns(sides[0].seconds, sides[1].seconds, settings.seconds)
    return Timed(other * 1e6, base * 1e6, rounds, difference, values)


class LocalKernel:
    """A kernel loaded into this process, with copies of its parameters."""

    def __init__(self, folder: Path) -> None:
        """Load what `stored.store` wrote.

        Raises:
            RuntimeError: It can't be loaded.
        """
        ffi = load_ffi()
        self._stored = Stored.read(folder)
        step = self._stored.copy_bytes
        self._copies = max(2, min(WORKING_SET // step, 256))
        memory = aligned_bytes(self._copies * step)
        for first in range(0, memory.size, step):
            memory[first : first + self._stored.parameters.size] = self._stored.parameters
        self._range = np.zeros(2, np.int32)
        arrays = (self._range, memory, self._stored.workspace)
        self._arrays = arrays  # the views below don't keep them
        self._arguments = [ffi.from_dlpack(array) for array in arrays]
        self._module = ffi.load_module(str(folder / "kernel.so"))
        self._entry = self._module[self._stored.entry]
        self._next = 0

    def first_output(self) -> NDArray[Any]:
        """Run once; return the result, floats as their bits.

        Raises:
            RuntimeError: A thread failed.
        """
        self._range[:] = 0, 1
        status = self._entry(*self._arguments)
        if status:
            raise RuntimeError(f"the kernel failed with status {status}")
        return self._stored.output(self._stored.workspace).copy()

    def seconds(self, count: int) -> float:
        """Time calls; copies are walked in a ring."""
        total = 0
        while count:
            part = min(count, self._copies - self._next)
            self._range[:] = self._next, self._next + part
            start = time.perf_counter_ns()
            self._entry(*self._arguments)
            total += time.perf_counter_ns() - start
            self._next = (self._next + part) % self._copies
            count -= part
        return total / 1e9

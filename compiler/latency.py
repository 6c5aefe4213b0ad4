"""Latency of several models, measured in turns so that all see the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from planish.ir.errors import OptionError

_BLOCK = 10  # calls in a row: a model meets its own weights in the caches, as in use
_WARM = 2  # of them not counted


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call.

    Attributes:
        median: The middle run.
        minimum: The fastest run.
        runs: How many were timed.
    """

    median: float
    minimum: float
    runs: int


def interleaved(calls: Mapping[str, Callable[[], object]], runs: int = 200) -> dict[str, Timing]:
    """Time each call `runs` times or a few more, in blocks that take turns.

    A load that comes and goes hits all of them, so that ratios hold where times don't.

    Args:
        calls: What to time, by name.
        runs: How many timed runs each gets at least.

    Raises:
        OptionError: `runs` is below 1.
    """
    if runs < 1:
        raise OptionError(f"runs must be at least 1, not {runs}")
    measured: dict[str, list[int]] = {name: [] for name in calls}
    names = list(calls)
    block = min(_BLOCK, runs)
    for turn in range(-(-runs // block)):
        shift = turn % max(len(names), 1)
        for name in names[shift:] + names[:shift]:
            measured[name] += _block(calls[name], block)
    return {name: _timing(times) for name, times in measured.items()}


def _block(call: Callable[[], object], count: int) -> list[int]:
    """Return nanoseconds of `count` calls, after a few that aren't counted."""
    for _ in range(_WARM):
        call()
    times: list[int] = []
    for _ in range(count):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return times


def _timing(times: list[int]) -> Timing:
    return Timing(statistics.median(times) / 1e6, min(times) / 1e6, len(times))

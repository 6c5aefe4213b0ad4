"""The end of a dense layer in registers: bias, requantize, perhaps add another activation, store.

Why it is exact: a sum is converted once, multiplied once, clamped to integers and rounded once, by
device functions that no compiler contracts. A residual is added in float32, in which nothing rounds
but the last product: see `kernels.epilogue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..kernels.statements import T, let, load, store
from .dense_problem import Dense
from .threads import at, do, get, when


class Ending:
    """Ends the sums of a block, run of channels by run."""

    def __init__(
        self, dense: Dense, tensors: dict[str, Any], first_pixel: Any, block: Any, group: Any
    ) -> None:
        """Compute once what all results share.

        Args:
            dense: The kernel.
            tensors: Its buffers and numbers, by name.
            first_pixel: Of the block.
            block: Number of the block of channels.
            group: Number of the group of channels.
        """
        self._dense, self._tensors = dense, tensors
        self._first_pixel = first_pixel
        self._first_channel = let(block * dense.tile.channels)
        blocks = group * dense.blocks + block
        self._numbers_at = let(blocks * dense.tile.channels)
        self._group_at = let(group * dense.group_steps[1])
        zero_point = tensors["zero_point"]
        self._lo = let(T.Cast("float32", tensors["lo"] - zero_point))
        self._hi = let(T.Cast("float32", tensors["hi"] - zero_point))

    def emit(self, channel: Any, pixels: Sequence[tuple[Any, list[Any]]]) -> None:
        """Store the results of a run of channels.

        Args:
            channel: The run's first, counted from the block's first.
            pixels: The pixel, counted from the block's first, and the run's sums, of each.
        """
        run, unit = self._dense.tile.run, self._dense.unit
        first = let(channel)
        numbers = [
            (
                let(load(self._tensors["bias"], self._numbers_at + first + i, 1)),
                let(load(self._tensors["multiplier"], self._numbers_at + first + i, 1)),
            )
            for i in range(run)
        ]
        for offset, sums in pixels:
            pixel = let(self._first_pixel + offset)
            with when(pixel < self._dense.count):
                places = self._places(pixel)
                for i in range(0, run, unit):
                    stored = self._first_channel + first + i
                    with when(stored < self._dense.stored):
                        parts = zip(sums[i : i + unit], numbers[i : i + unit], strict=True)
                        totals = [(total + bias, multiplier) for total, (bias, multiplier) in parts]
                        self._store(totals, [place + stored for place in places])

    def _places(self, pixel: Any) -> list[Any]:
        """Return where a pixel begins in y, and in the other summand if there is one."""
        dense = self._dense
        steps = [dense.y_steps] + ([dense.other_steps] if dense.other_steps else [])
        return [let(dense.place(pixel, step) + self._group_at) for step in steps]

    def _store(self, totals: list[tuple[Any, Any]], places: list[Any]) -> None:
        """Store a unit of results."""
        y, zero_point = self._tensors["y"], self._tensors["zero_point"]
        if self._dense.real:
            for i, (total, multiplier) in enumerate(totals):
                store(y, places[0] + i, get("float32", "scale", total, multiplier), 1)
            return
        if self._dense.other_steps:
            others = self._others(places[1], len(totals))
            results = [self._added(*pair, o) for pair, o in zip(totals, others, strict=True)]
        else:
            results = [get("int32", "requantize", *pair, self._lo, self._hi) for pair in totals]
        stored = [let(result + zero_point) for result in results]
        if len(stored) == 1:
            store(y, places[0], T.Cast("uint8", stored[0]), 1)
            return
        words = [get("uint32", "pack", *stored[i : i + 4]) for i in range(0, len(stored), 4)]
        do(f"store_{len(stored)}", at(y, places[0]), *words)

    def _others(self, place: Any, count: int) -> list[Any]:
        """Return the other summand's bytes as int32."""
        other = self._tensors["other"]
        if count == 1:
            return [T.Cast("int32", load(other, place, 1))]
        words = [let(get("uint32", "load_4", at(other, place + i))) for i in range(0, count, 4)]
        return [get("int32", "byte", word, i) for word in words for i in range(4)]

    def _added(self, total: Any, multiplier: Any, other: Any) -> Any:
        """Return the sum of add_i8, the zero point not yet added."""
        t = self._tensors
        own = [t[name] for name in ("own_lo", "own_hi")]
        factors = [t[name] for name in ("own_factor", "other_factor", "other_offset", "sum_scale")]
        return get("int32", "add", total, multiplier, *own, other, *factors, self._lo, self._hi)

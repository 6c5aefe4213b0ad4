"""Depthwise convolution on a GPU: dot products of four rows of the kernel.

A thread computes four neighbouring channels of `columns` output pixels side by side. It reads each
input column of their windows once, a word of four channels from each kernel row, and turns four
words so that each holds one channel's values of four rows: one dot product multiplies them with a
column of the channel's kernel, and every output that reads the column uses the same words. Kernels
of more than four rows take several such groups. The last pixels of a line start early instead of
being fewer.

Reckoned, not measured: a 3 x 3 kernel takes 12 dot products and, for four columns, 12 permutations
a word of outputs, about a quarter of the instructions that single products would take; then memory,
read in whole sectors from eight channels on, limits it.

Why it is exact: as in `dense`; weights of rows that the kernel hasn't are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..kernels.statements import T, kernel, let, load
from .threads import Launch, at, do, get, split, when

Pair = tuple[int, int]
# Rows of the kernel that a dot product takes, and channels of a word.
GROUP = 4
THREADS = 128


@dataclass(frozen=True)
class Depthwise:
    """One kernel: everything but the bounds of its results is fixed.

    Attributes:
        columns: Output pixels of a thread, at most those of a line.
        window: The kernel's (height, width).
        stride: (vertical, horizontal).
        dilation: (vertical, horizontal).
        counts: Output (images, rows, columns).
        words: Words of four channels.
        x_steps: Elements from one image, row and pixel to the next in x.
        y_steps: The same in y.
    """

    columns: int
    window: Pair
    stride: Pair
    dilation: Pair
    counts: tuple[int, int, int]
    words: int
    x_steps: tuple[int, int, int]
    y_steps: tuple[int, int, int]

    @property
    def groups(self) -> int:
        """Groups of four rows of the kernel."""
        return -(-self.window[0] // GROUP)

    def emit(self, tensors: dict[str, Any]) -> None:
        """Emit the kernel's body on its buffers and numbers, by name."""
        images, height, width = self.counts
        across = -(-width // self.columns)
        tasks = images * height * across * self.words
        with Launch((-(-tasks // THREADS), 1, 1), THREADS) as (block, _, _, thread):
            task = let(block * THREADS + thread)
            with when(task < tasks):
                image, row, tile, word = split(task, (images, height, across, self.words))
                column = let(T.min(tile * self.columns, width - self.columns))
                self._compute(tensors, let(word), (image, row, column))

    def _compute(self, tensors: dict[str, Any], word: Any, place: tuple[Any, Any, Any]) -> None:
        first = self.window[1] * self.groups * GROUP
        weights = [let(load(tensors["weights"], word * first + i, 1)) for i in range(first)]
        image, row, pixel = self.x_steps
        steps = (image, row * self.stride[0], pixel * self.stride[1])
        x_at = let(sum((p * s for p, s in zip(place, steps, strict=True)), word * GROUP))
        y_at = let(sum((p * s for p, s in zip(place, self.y_steps, strict=True)), word * GROUP))
        bias = [let(load(tensors["bias"], word * GROUP + i, 1)) for i in range(GROUP)]
        sums = {column: list(bias) for column in range(self.columns)}
        for at_column in range((self.columns - 1) * self.stride[1] + self._reach):
            readers = [(c, tap) for c in sums if (tap := self._tap(at_column, c)) is not None]
            for group in range(self.groups if readers else 0):
                turned = self._turned(tensors["x"], x_at + at_column * self.x_steps[2], group)
                for column, tap in readers:
                    index = (tap * self.groups + group) * GROUP
                    sums[column] = [
                        let(get("int32", "dot", total, word, weight))
                        for total, word, weight in zip(
                            sums[column], turned, weights[index : index + GROUP], strict=True
                        )
                    ]
        self._finish(tensors, sums, word, y_at)

    @property
    def _reach(self) -> int:
        return (self.window[1] - 1) * self.dilation[1] + 1

    def _tap(self, place: int, column: int) -> int | None:
        """Return which column of the kernel an output applies to an input column, or None."""
        tap, rest = divmod(place - column * self.stride[1], self.dilation[1])
        return tap if not rest and 0 <= tap < self.window[1] else None

    def _turned(self, x: Any, start: Any, group: int) -> list[Any]:
        """Return a word a channel: its values in four rows of the kernel."""
        rows = range(group * GROUP, min(group * GROUP + GROUP, self.window[0]))
        distances = [row * self.dilation[0] * self.x_steps[1] for row in rows]
        words = [let(get("uint32", "load_4", at(x, start + distance))) for distance in distances]
        a, b, c, d = (*words, *(words[0] for _ in range(GROUP - len(words))))
        halves = [
            (let(_bytes(a, b, order)), let(_bytes(c, d, order))) for order in (0x5140, 0x7362)
        ]
        return [let(_bytes(*half, order)) for half in halves for order in (0x5410, 0x7632)]

    def _finish(
        self, tensors: dict[str, Any], sums: dict[int, list[Any]], word: Any, y_at: Any
    ) -> None:
        zero_point = tensors["zero_point"]
        lo, hi = (let(T.Cast("float32", tensors[name] - zero_point)) for name in ("lo", "hi"))
        multiplier = [let(load(tensors["multiplier"], word * GROUP + i, 1)) for i in range(GROUP)]
        for column, totals in sums.items():
            results = [
                let(get("int32", "requantize", total, m, lo, hi) + zero_point)
                for total, m in zip(totals, multiplier, strict=True)
            ]
            y = at(tensors["y"], y_at + column * self.y_steps[2])
            do("store_4", y, get("uint32", "pack", *results))


def _bytes(low: Any, high: Any, order: int) -> Any:
    return get("uint32", "bytes", low, high, T.uint32(order))


def build(**layout: Any) -> Any:
    """Return the kernel: x, weights, bias, multiplier and y, then `lo`, `hi` and `zero_point`.

    Args:
        layout: What `Depthwise` takes.
    """
    made = Depthwise(**layout)
    pointers = [("x", "uint8"), ("weights", "uint32"), ("bias", "int32")]
    pointers += [("multiplier", "float32"), ("y", "uint8")]

    def body(**tensors: Any) -> None:
        made.emit(tensors)

    return kernel(pointers, [("lo", "int32"), ("hi", "int32"), ("zero_point", "int32")], body)

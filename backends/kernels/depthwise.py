"""Depthwise convolution: each channel has its own small filter.

A vector holds neighbouring channels of one pixel, so neighbouring rows of the image are interleaved
channel by channel (see `interleave`): with `vpdpbusd`, one int32 lane multiplies a channel's values
in four rows at once. The interleaved rows of an input column serve every output that reads it: all
columns of the kernel, and, as weights of rows that an output doesn't read are zero, several output
rows. A tile is `rows` x `columns` output pixels, computed while its input columns go by from left
to right; a sum lives only while its window is passed.

Fewer channels than a vector has: it holds them of several tiles that lie side by side (`copies`).

Every distance in memory is fixed at compile time. The last tile of a line, the last lines and the
last block of channels start early instead of being short.

Why it is exact: products and sums are integers modulo 2**32; padding holds the zero point and the
packed bias holds `bias - zero_point * sum(weights)`. For the end see `narrowing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .interleave import Interleaving
from .narrowing import bounded
from .statements import T, kernel, let, load, loop, store

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Which inputs the outputs of a tile read.

    Attributes:
        kernel: (height, width).
        stride: (vertical, horizontal).
        dilation: (vertical, horizontal).
        tile: Output (rows, columns).
        group: Input rows that are interleaved.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    tile: Pair
    group: int

    def reach(self, axis: int) -> int:
        """Input rows (0) or columns (1) of a tile."""
        window = (self.kernel[axis] - 1) * self.dilation[axis]
        return (self.tile[axis] - 1) * self.stride[axis] + window + 1

    @property
    def groups(self) -> int:
        """Groups of interleaved input rows."""
        return -(-self.reach(0) // self.group)

    def tap(self, axis: int, output: int, place: int) -> int | None:
        """Return which row or column of the kernel an output applies to an input, or None."""
        tap, rest = divmod(place - output * self.stride[axis], self.dilation[axis])
        return tap if not rest and 0 <= tap < self.kernel[axis] else None

    def taps(self, row: int, group: int) -> list[int | None]:
        """Return the kernel rows that an output row applies to a group's input rows."""
        first = group * self.group
        return [self.tap(0, row, first + i) for i in range(self.group)]


def build(
    instruction: str,
    lanes: int,
    copies: int,
    tile: Pair,
    window: Pair,
    stride: Pair,
    dilation: Pair,
    counts: tuple[int, int, int],
    x_steps: tuple[int, int, int],
    y_steps: tuple[int, int, int],
    blocks: int,
    last_block: int,
    unbounded: bool = False,
    parallel: bool = False,
) -> Any:
    """Return the kernel.

    Args:
        instruction: See `Interleaving`.
        lanes: int32 lanes of a vector.
        copies: Tiles side by side that share a vector.
        tile: Output (rows, columns).
        window: The kernel's (height, width).
        stride: (vertical, horizontal).
        dilation: (vertical, horizontal).
        counts: Output (images, rows, columns).
        x_steps: Elements from one image, row and pixel to the next in x.
        y_steps: The same in y.
        blocks: Blocks of channels.
        last_block: The first channel of the last block.
        unbounded: Products may reach 2**31.
        parallel: Share the rows of tiles between threads.
    """
    form = Interleaving(instruction, lanes)
    seen = Window(window, stride, dilation, tile, form.group)
    images, height, width = counts
    rows, columns = tile
    channels = form.channels // copies
    row_tiles, column_tiles = -(-height // rows), -(-width // (columns * copies))
    block_weights = window[1] * rows * seen.groups * form.parts * lanes * form.group

    def load_pixel(x: Any, at: Any) -> Any:
        """Bytes of one pixel, or of one in each copy of the tile."""
        step = columns * stride[1] * x_steps[2]
        pieces = [load(x, at + copy * step, channels) for copy in range(copies)]
        whole = pieces[0] if copies == 1 else T.Shuffle(pieces, list(range(form.channels)))
        return form.widened(let(whole))

    def load_column(x: Any, at: Any) -> list[list[Any]]:
        """Interleaved rows of one input column, by group and part; nothing of unread groups."""
        needed = [r for r in range(seen.reach(0)) if _is_read(seen, r)]
        pixels = {r: load_pixel(x, at + r * x_steps[1]) for r in needed}
        found: list[list[Any]] = []
        for first in range(0, seen.groups * form.group, form.group):
            group = [pixels.get(first + i) for i in range(form.group)]
            found.append([] if group == [None] * form.group else form.interleaved(group))
        return found

    def weight_at(first: Any, tap: int, row: int, group: int, part: int) -> Any:
        index = ((tap * rows + row) * seen.groups + group) * form.parts + part
        return first + index * (lanes * form.group)

    def finish(tensors: Any, sums: list[Any], numbers_at: Any, y_at: Any, bounds: Any) -> None:
        products = [
            T.Cast(f"float32x{lanes}", total)
            * load(tensors["multiplier"], numbers_at + part * lanes, lanes)
            for part, total in enumerate(sums)
        ]
        if unbounded:
            products = [bounded(p, lanes) for p in products]
        bytes_ = form.narrowed([let(p) for p in products], *bounds)
        for copy in range(copies):
            where = list(range(copy * channels, (copy + 1) * channels))
            piece = bytes_ if copies == 1 else T.Shuffle([bytes_], where)
            store(tensors["y"], y_at + copy * columns * y_steps[2], piece, channels)

    def compute_tile(tensors: Any, block: Any, x_at: Any, y_at: Any, bounds: Any) -> None:
        numbers_at = let(block * form.channels)
        weights_at = let(block * block_weights)
        sums: dict[Pair, list[Any]] = {}
        for place in range(seen.reach(1)):
            readers = {c: seen.tap(1, c, place) for c in range(columns)}
            readers = {c: tap for c, tap in readers.items() if tap is not None}
            if not readers:
                continue
            operands = load_column(tensors["x"], x_at + place * x_steps[2])
            for part in range(form.parts):
                for column, tap in readers.items():
                    for row in range(rows):
                        found = sums.setdefault((row, column), [None] * form.parts)
                        total = found[part]
                        if total is None:
                            total = load(tensors["bias"], numbers_at + part * lanes, lanes)
                        for g in range(seen.groups):
                            if seen.taps(row, g) == [None] * form.group:
                                continue
                            where = weight_at(weights_at, tap, row, g, part)
                            weight = load(tensors["weights"], where, lanes * form.group)
                            total = let(form.multiply(total, operands[g][part], weight))
                        found[part] = total
            for column, tap in readers.items():
                if tap == window[1] - 1:
                    for row in range(rows):
                        done = sums.pop((row, column))
                        at = y_at + (row * y_steps[1] + column * y_steps[2])
                        finish(tensors, done, numbers_at, at, bounds)

    def body(lo: Any, hi: Any, zero_point: Any, **tensors: Any) -> None:
        with loop(images * row_tiles * blocks, parallel=parallel) as task:
            block = let(task % blocks)
            channel = let(T.min(block * channels, last_block))
            row = let(T.min(task // blocks % row_tiles * rows, height - rows))
            image = let(task // (blocks * row_tiles))
            bounds = (T.Cast("int16", zero_point), T.Cast("uint8", lo), T.Cast("uint8", hi))
            with loop(column_tiles) as i:
                column = let(T.min(i * (columns * copies), width - columns * copies))
                x_steps_out = (x_steps[0], x_steps[1] * stride[0], x_steps[2] * stride[1])
                place = (image, row, column)
                x_at = let(channel + sum(p * s for p, s in zip(place, x_steps_out, strict=True)))
                y_at = let(channel + sum(p * s for p, s in zip(place, y_steps, strict=True)))
                compute_tile(tensors, block, x_at, y_at, bounds)

    pointers = [("x", "uint8"), ("weights", form.weight), ("bias", "int32")]
    pointers += [("multiplier", "float32"), ("y", "uint8")]
    return kernel(pointers, [("lo", "int32"), ("hi", "int32"), ("zero_point", "int32")], body)


def _is_read(seen: Window, row: int) -> bool:
    """Whether any output row of a tile reads an input row: with strides and dilation some don't."""
    return any(seen.tap(0, out, row) is not None for out in range(seen.tile[0]))

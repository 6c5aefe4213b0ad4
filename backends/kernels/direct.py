"""Dense convolution and linear layers, directly: every distance in memory is fixed at compile time.

The sums of a tile (see `tiles`) stay in registers while all of the window is read: its runs (kernel
rows of neighbouring activations), each `group` activations at a time, as one 32-bit broadcast a
pixel that all vectors share. As a pixel's distance from the tile's first one is a constant, one
address serves them all.

Why it is exact: every product and sum is an integer modulo 2**32, in whatever order; padding holds
the zero point, and the packed bias holds `bias - zero_point * sum(weights)`. A run may read past
its end, where the packed weights are zero.
"""

from __future__ import annotations

from typing import Any

from .epilogue import SCALARS
from .instructions import INSTRUCTIONS, Instruction
from .statements import T, kernel, let, load, loop, store
from .tiles import Tiles


def build(instruction: str, window: tuple[int, int, int], **layout: Any) -> Any:
    """Return the kernel.

    Args:
        instruction: A name in INSTRUCTIONS.
        window: (runs, steps of a run, elements from one run to the next); a step reads as many
            activations as the instruction says.
        layout: What `Tiles` takes.
    """
    dot = INSTRUCTIONS[instruction]
    tiles = Tiles(**layout, pixels_at_once=dot.pixels, parts=dot.parts)
    runs, steps, run_step = window
    add_step = _add_group if dot.operands is None else _add_groups

    def multiply(tensors: dict[str, Any], sums: list[Any], start: Any, block: Any) -> None:
        with loop(runs) as r, loop(steps) as s:
            at = ((block * runs + r) * steps + s) * (tiles.width * dot.reads)
            first = start + r * run_step + s * dot.reads
            add_step(dot, tiles, tensors, sums, first, at)

    def body(**tensors: Any) -> None:
        tiles.emit(multiply, tensors)

    pointers = [("x", dot.storage), ("weights", dot.weight), ("bias", "int32")]
    pointers += [("multiplier", "float32"), ("y", dot.storage), ("other", dot.storage)]
    return kernel(pointers, SCALARS, body)


def _add_group(
    dot: Instruction, tiles: Tiles, tensors: dict[str, Any], sums: list[Any], first: Any, at: Any
) -> None:
    """Add what one group of activations of each pixel gives, pixel by pixel."""
    lanes, x = tiles.lanes, tensors["x"]
    size = lanes * dot.group
    packed = [let(load(tensors["weights"], at + v * size, size)) for v in range(tiles.tile[2])]
    first = let(first)
    for pixel_sums, distance in zip(sums, tiles.distances(tiles.x_steps), strict=True):
        group = x.vload([first + distance], f"{dot.storage}x{dot.group}")
        shared = let(T.reinterpret("int32", group))
        for v, weight in enumerate(packed):
            total = dot.multiply(lanes, load(pixel_sums, v * lanes, lanes), shared, weight)
            store(pixel_sums, v * lanes, total, lanes)


def _add_groups(
    dot: Instruction, tiles: Tiles, tensors: dict[str, Any], sums: list[Any], first: Any, at: Any
) -> None:
    """Add what `reads` activations of each pixel give, register of weights by register."""
    lanes, x, arranged = tiles.lanes, tensors["x"], tiles.sums
    first = let(first)

    def operands_of(group: tuple[int, ...]) -> list[Any]:
        assert dot.operands is not None
        return dot.operands(
            lambda pixel, start, count: let(load(x, first + (group[pixel] + start), count))
        )

    operands = [operands_of(group) for group in arranged.groups(tiles.distances(tiles.x_steps))]
    size = arranged.channels * dot.group
    for step in range(dot.reads // dot.group):
        for register in range(arranged.registers):
            where = at + (step * arranged.registers + register) * size
            weight = let(load(tensors["weights"], where, size))
            for group_sums, found in zip(sums, operands, strict=True):
                so_far = load(group_sums, register * lanes, lanes)
                total = dot.multiply(lanes, so_far, found[step], weight)
                store(group_sums, register * lanes, total, lanes)

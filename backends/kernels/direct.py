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
from .instructions import INSTRUCTIONS
from .statements import T, kernel, let, load, loop, store
from .tiles import Tiles


def build(instruction: str, window: tuple[int, int, int], **layout: Any) -> Any:
    """Return the kernel.

    Args:
        instruction: A name in INSTRUCTIONS.
        window: (runs, steps of a run, elements from one run to the next).
        layout: What `Tiles` takes.
    """
    dot = INSTRUCTIONS[instruction]
    tiles = Tiles(**layout)
    lanes, vectors, distances = tiles.lanes, tiles.tile[2], tiles.distances(tiles.x_steps)
    runs, steps, run_step = window

    def multiply(tensors: dict[str, Any], sums: list[Any], start: Any, block: Any) -> None:
        x, weights = tensors["x"], tensors["weights"]
        with loop(runs) as r, loop(steps) as s:
            at = ((block * runs + r) * steps + s) * (tiles.width * dot.group)
            packed = [
                let(load(weights, at + v * lanes * dot.group, lanes * dot.group))
                for v in range(vectors)
            ]
            first = let(start + r * run_step + s * dot.group)
            for pixel_sums, distance in zip(sums, distances, strict=True):
                group = x.vload([first + distance], f"{dot.storage}x{dot.group}")
                shared = let(T.reinterpret("int32", group))
                for v, weight in enumerate(packed):
                    total = dot.multiply(lanes, load(pixel_sums, v * lanes, lanes), shared, weight)
                    store(pixel_sums, v * lanes, total, lanes)

    def body(**tensors: Any) -> None:
        tiles.emit(multiply, tensors)

    pointers = [("x", dot.storage), ("weights", dot.weight), ("bias", "int32")]
    pointers += [("multiplier", "float32"), ("y", dot.storage), ("other", dot.storage)]
    return kernel(pointers, SCALARS, body)

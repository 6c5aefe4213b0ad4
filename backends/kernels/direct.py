"""Dense convolution and linear layers, directly: every distance in memory is fixed at compile time.

Output pixels are `images` times `lines` times `length`, evenly far from each other in every
operand. A tile is `rows` lines by `columns` pixels by `vectors` vectors of output channels, whose
int32 sums stay in registers while all of the window is read: its runs (kernel rows of neighbouring
activations), each `group` activations at a time, as one 32-bit broadcast a pixel that all vectors
share. As a pixel's distance from the tile's first one is a constant, one address serves them all.
The last tile of a line, and the last lines, start early instead of being short.

Why it is exact: every product and sum is an integer modulo 2**32, in whatever order; padding holds
the zero point, and the packed bias holds `bias - zero_point * sum(weights)`. A run may read past
its end, where the packed weights are zero.
"""

from __future__ import annotations

from typing import Any

from .epilogue import SCALARS
from .instructions import INSTRUCTIONS
from .statements import T, kernel, let, load, loop, store
from .tiles import Steps, Tiles


def build(
    instruction: str,
    lanes: int,
    tile: tuple[int, int, int],
    pixels: tuple[int, int, int],
    x_steps: Steps,
    y_steps: Steps,
    other_steps: Steps | None,
    window: tuple[int, int, int],
    blocks: int,
    chunk: int,
    narrow: bool = False,
    unbounded: bool = True,
    parallel: bool = False,
) -> Any:
    """Return the kernel.

    Args:
        instruction: A name in INSTRUCTIONS.
        lanes: int32 lanes of a vector.
        tile: (rows, columns, vectors).
        pixels: (images, lines, length) of the output.
        x_steps: Elements from one image, line and pixel's window to the next in x.
        y_steps: The same in y.
        other_steps: The same in the residual's other summand, if there is one.
        window: (runs, steps of a run, elements from one run to the next).
        blocks: Blocks of `vectors * lanes` output channels.
        chunk: Tiles of lines that one task takes before it goes on to the next block.
        narrow: The last vector of the last block has half its lanes.
        unbounded: Products of sums and multipliers may reach 2**31.
        parallel: Share the tasks between the threads of TVM's pool.
    """
    dot, vectors = INSTRUCTIONS[instruction], tile[2]
    tiles = Tiles(
        lanes,
        tile,
        pixels,
        x_steps,
        y_steps,
        other_steps,
        blocks,
        chunk,
        narrow=narrow,
        unbounded=unbounded,
        parallel=parallel,
    )
    runs, steps, run_step = window
    distances = tiles.distances(x_steps)
    packed_lanes = lanes * dot.group

    def multiply(tensors: dict[str, Any], sums: list[Any], start: Any, block: Any) -> None:
        x, weights = tensors["x"], tensors["weights"]
        with loop(runs) as r, loop(steps) as s:
            at = ((block * runs + r) * steps + s) * (vectors * packed_lanes)
            packed = [
                let(load(weights, at + v * packed_lanes, packed_lanes)) for v in range(vectors)
            ]
            first = let(start + r * run_step + s * dot.group)
            for pixel_sums, distance in zip(sums, distances, strict=True):
                where = first + distance
                shared = let(T.reinterpret("int32", x.vload([where], f"{dot.storage}x{dot.group}")))
                for v, weight in enumerate(packed):
                    old = load(pixel_sums, v * lanes, lanes)
                    store(pixel_sums, v * lanes, dot.multiply(lanes, old, shared, weight), lanes)

    def body(**tensors: Any) -> None:
        tiles.emit(multiply, tensors)

    pointers = [("x", dot.storage), ("weights", dot.weight), ("bias", "int32")]
    pointers += [("multiplier", "float32"), ("y", dot.storage), ("other", dot.storage)]
    return kernel(pointers, SCALARS, body)

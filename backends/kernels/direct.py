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

from dataclasses import dataclass
from typing import Any

from .epilogue import SCALARS, Epilogue
from .instructions import INSTRUCTIONS
from .statements import T, kernel, let, load, local, loop, store

Steps = tuple[int, int, int]


@dataclass(frozen=True)
class Tile:
    """What one pass keeps in registers: lines, pixels of a line, vectors of channels."""

    rows: int
    columns: int
    vectors: int

    @property
    def pixels(self) -> list[tuple[int, int]]:
        """Line and column of each output pixel."""
        return [(r, c) for r in range(self.rows) for c in range(self.columns)]


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
    plain: bool = False,
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
        plain: The zero point of y is 0.
        parallel: Share the tasks between the threads of TVM's pool.
    """
    dot = INSTRUCTIONS[instruction]
    shape = Tile(*tile)
    images, lines, length = pixels
    line_tiles, column_tiles = -(-lines // shape.rows), -(-length // shape.columns)
    chunks = -(-line_tiles // chunk)
    runs, steps, run_step = window
    width = lanes * shape.vectors
    finish = Epilogue(lanes, dot.storage, residual=other_steps is not None, plain=plain)

    def multiply(x: Any, weights: Any, sums: Any, start: Any, block: Any) -> None:
        with loop(runs) as r, loop(steps) as s:
            at = ((block * runs + r) * steps + s) * (width * dot.group)
            packed = [
                let(load(weights, at + v * lanes * dot.group, lanes * dot.group))
                for v in range(shape.vectors)
            ]
            first = let(start + r * run_step + s * dot.group)
            for p, (row, column) in enumerate(shape.pixels):
                where = first + (row * x_steps[1] + column * x_steps[2])
                shared = let(T.reinterpret("int32", x.vload([where], f"{dot.storage}x{dot.group}")))
                for v, weight in enumerate(packed):
                    total = dot.multiply(lanes, load(sums[p], v * lanes, lanes), shared, weight)
                    store(sums[p], v * lanes, total, lanes)

    def finish_tile(tensors: Any, sums: Any, block: Any, y_at: Any, other_at: Any) -> None:
        for p, (row, column) in enumerate(shape.pixels):
            for v in range(shape.vectors):
                total = load(sums[p], v * lanes, lanes)
                y_index = y_at + (row * y_steps[1] + column * y_steps[2] + v * lanes)
                other_index = (
                    other_at + (row * other_steps[1] + column * other_steps[2] + v * lanes)
                    if other_steps
                    else None
                )
                factor = load(tensors["multiplier"], (block * shape.vectors + v) * lanes, lanes)
                finish.store(
                    tensors,
                    total,
                    factor,
                    y_index,
                    other_index,
                    half=(block == blocks - 1) if narrow and v == shape.vectors - 1 else None,
                )

    def body(**tensors: Any) -> None:
        with loop(images * chunks * blocks, parallel=parallel) as task:
            block = let(task % blocks)
            image = let(task // (blocks * chunks))
            first_tile = let(task // blocks % chunks * chunk)
            count = T.min(chunk, line_tiles - first_tile)
            with loop(count) as i, loop(column_tiles) as j:
                line = let(T.min((first_tile + i) * shape.rows, lines - shape.rows))
                column = let(T.min(j * shape.columns, length - shape.columns))

                def place(steps: Steps) -> Any:
                    return let(image * steps[0] + line * steps[1] + column * steps[2])

                # One buffer a pixel: TVM keeps no more than 1 KiB of a buffer on the stack.
                sums = [local(width, "int32") for _ in shape.pixels]
                for v in range(shape.vectors):
                    bias = let(load(tensors["bias"], (block * shape.vectors + v) * lanes, lanes))
                    for pixel_sums in sums:
                        store(pixel_sums, v * lanes, bias, lanes)
                multiply(tensors["x"], tensors["weights"], sums, place(x_steps), block)
                y_at = let(place(y_steps) + block * width)
                other_at = let(place(other_steps) + block * width) if other_steps else None
                finish_tile(finish.bound(tensors), sums, block, y_at, other_at)

    pointers = [("x", dot.storage), ("weights", dot.weight), ("bias", "int32")]
    pointers += [("multiplier", "float32"), ("y", dot.storage), ("other", dot.storage)]
    return kernel(pointers, SCALARS, body)

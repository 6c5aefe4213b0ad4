"""Loops over tiles of a dense layer's outputs: where they lie, how they begin, how they end.

Output pixels are `images` times `lines` times `length`, evenly far from each other in every
operand, and all of these distances are fixed at compile time. A tile is `rows` lines by `columns`
pixels by `vectors` vectors of output channels. The last tile of a line, and the last lines, start
early instead of being short.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .epilogue import Epilogue, Result
from .statements import T, let, load, loop
from .sums import Sums

Steps = tuple[int, int, int]
# multiply(tensors, sums, start, block): adds to the int32 sums, one buffer a pixel (or group of
# them, see `Sums`), what the windows that begin `start` elements into x give for a block of output
# channels.
Multiply = Callable[[dict[str, Any], list[Any], Any, Any], None]


@dataclass(frozen=True)
class Tiles:
    """A layer's outputs as tiles.

    Attributes:
        lanes: int32 lanes of a vector.
        tile: (rows, columns, vectors).
        pixels: (images, lines, length) of the output.
        x_steps: Elements from one image, line and pixel's window to the next in x.
        y_steps: The same in y.
        other_steps: The same in the residual's other summand, if there is one.
        blocks: Blocks of `vectors * lanes` output channels.
        chunk: Tiles that one task takes before it goes on to the next block.
        narrow: The last vector of the last block has half its lanes.
        unbounded: See `Epilogue`, as for the next two.
        clamped: See there.
        shifted: See there.
        parallel: Share the tasks between the threads of TVM's pool.
        pixels_at_once: Neighbouring pixels whose sums a register holds (see `Sums`).
        parts: Lanes that are one channel's sum together (see there).
    """

    lanes: int
    tile: tuple[int, int, int]
    pixels: tuple[int, int, int]
    x_steps: Steps
    y_steps: Steps
    other_steps: Steps | None
    blocks: int
    chunk: int
    narrow: bool = False
    unbounded: bool = True
    clamped: bool = True
    shifted: bool = True
    parallel: bool = False
    pixels_at_once: int = 1
    parts: int = 1

    @property
    def width(self) -> int:
        """Output channels of a block."""
        return self.lanes * self.tile[2]

    @property
    def sums(self) -> Sums:
        """How the sums of a tile lie in registers."""
        return Sums(self.lanes, self.tile[2], self.pixels_at_once, self.parts)

    def distances(self, steps: Steps) -> list[int]:
        """Return how far each pixel of a tile is from the first one."""
        rows, columns, _ = self.tile
        return [r * steps[1] + c * steps[2] for r in range(rows) for c in range(columns)]

    def emit(self, multiply: Multiply, tensors: dict[str, Any]) -> None:
        """Emit the loops.

        Args:
            multiply: Emits what a tile's sums are made of.
            tensors: The kernel's buffers and numbers, by name.
        """
        images, lines, length = self.pixels
        rows, columns, _ = self.tile
        line_tiles, column_tiles = -(-lines // rows), -(-length // columns)
        tiles = line_tiles * column_tiles
        chunks = -(-tiles // self.chunk)
        residual = self.other_steps is not None
        finish = Epilogue(self.lanes, residual, self.unbounded, self.clamped, self.shifted)
        with loop(images * chunks * self.blocks, parallel=self.parallel) as task:
            block = let(task % self.blocks)
            image = let(task // (self.blocks * chunks))
            first_tile = let(task // self.blocks % chunks * self.chunk)
            with loop(T.min(self.chunk, tiles - first_tile)) as i:
                tile = let(first_tile + i)
                line = let(T.min(tile // column_tiles * rows, lines - rows))
                column = let(T.min(tile % column_tiles * columns, length - columns))

                def place(steps: Steps) -> Any:
                    return let(image * steps[0] + line * steps[1] + column * steps[2])

                sums = self.sums.begin(rows * columns, tensors["bias"], block * self.width)
                multiply(tensors, sums, place(self.x_steps), block)
                y_at = let(place(self.y_steps) + block * self.width)
                other = self.other_steps
                other_at = let(place(other) + block * self.width) if other else None
                self._finish(finish, tensors, sums, block, y_at, other_at)

    def _finish(
        self,
        finish: Epilogue,
        tensors: dict[str, Any],
        sums: list[Any],
        block: Any,
        y_at: Any,
        other_at: Any | None,
    ) -> None:
        lanes, vectors = self.lanes, self.tile[2]
        y_distances = self.distances(self.y_steps)
        other_distances = self.distances(self.other_steps) if self.other_steps else y_distances
        results = [
            Result(
                let(self.sums.total(sums, p, v, tensors["bias"], block * self.width)),
                load(tensors["multiplier"], (block * vectors + v) * lanes, lanes),
                y_at + (y_distances[p] + v * lanes),
                None if other_at is None else other_at + (other_distances[p] + v * lanes),
                beside=v > 0,
                half=(block == self.blocks - 1) if self.narrow and v == vectors - 1 else None,
            )
            for p in range(len(y_distances))
            for v in range(vectors)
        ]
        finish.store(tensors, results)

"""Loops over tiles of a dense layer's outputs: where they lie, how they begin, how they end.

Output pixels are `images` times `lines` times `length`, evenly far from each other in every
operand, and all of these distances are fixed at compile time. A tile is `rows` lines by `columns`
pixels by `vectors` vectors of output channels. The last tile of a line, and the last lines, start
early instead of being short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .epilogue import Epilogue, Result
from .statements import T, let, load, local, loop, store

Steps = tuple[int, int, int]
# multiply(tensors, sums, start, block): adds to the int32 sums, one buffer a pixel, what the
# windows that begin `start` elements into x give for a block of output channels.
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
        paired: A vector of sums holds those of two pixels, half of the channels of each.
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
    paired: bool = False

    @property
    def width(self) -> int:
        """Output channels of a block."""
        return self.lanes * self.tile[2]

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

                sums = self._begin(tensors["bias"], block)
                multiply(tensors, sums, place(self.x_steps), block)
                y_at = let(place(self.y_steps) + block * self.width)
                other = self.other_steps
                other_at = let(place(other) + block * self.width) if other else None
                self._finish(finish, tensors, sums, block, y_at, other_at)

    def _begin(self, bias: Any, block: Any) -> list[Any]:
        """Return a buffer of sums a pixel: TVM keeps no more than 1 KiB of one on the stack."""
        rows, columns, vectors = self.tile
        pixels = rows * columns
        if self.paired:
            return self._begin_pairs(bias, block, -(-pixels // 2))
        sums = [local(self.width, "int32") for _ in range(pixels)]
        for v in range(vectors):
            first = let(load(bias, (block * vectors + v) * self.lanes, self.lanes))
            for pixel_sums in sums:
                store(pixel_sums, v * self.lanes, first, self.lanes)
        return sums

    def _begin_pairs(self, bias: Any, block: Any, pairs: int) -> list[Any]:
        """Return a buffer of sums a pair: two channels of both pixels in a vector of four lanes."""
        sums = [local(2 * self.width, "int32") for _ in range(pairs)]
        for v in range(self.tile[2]):
            first = let(load(bias, block * self.width + v * self.lanes, self.lanes))
            for half in range(2):
                repeated = let(T.Shuffle([first], [2 * half, 2 * half + 1] * 2))
                for pair_sums in sums:
                    store(pair_sums, (2 * v + half) * self.lanes, repeated, self.lanes)
        return sums

    def _total(self, sums: list[Any], pixel: int, vector: int) -> Any:
        """Return a vector of channels of one pixel."""
        lanes = self.lanes
        if not self.paired:
            return load(sums[pixel], vector * lanes, lanes)
        halves = [load(sums[pixel // 2], (2 * vector + half) * lanes, lanes) for half in range(2)]
        own = pixel % 2 * 2
        return T.Shuffle(halves, [own, own + 1, own + 4, own + 5])

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
                let(self._total(sums, p, v)),
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


def in_pairs(values: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return neighbours as pairs; the last of an odd number is its own neighbour."""
    even = [*values, *values[-1:]] if len(values) % 2 else list(values)
    return list(zip(even[::2], even[1::2], strict=True))

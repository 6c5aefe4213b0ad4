"""How threads multiply a step's tiles in shared memory: with tensor cores, or with dot products.

Both begin with sums of zero, add a slice's step (`emit`), then the slices (`finished`), and say
whose sums are whose (`results`): the first channel of a run of neighbours, and for each pixel its
sums of that run, both counted from the block's first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

from ..kernels.statements import T, let, load, loop, store
from .threads import at, do, get, registers, split, when
from .tiles import PIECE, WARP, Tile

# The first channel of a run, and (pixel, sums) of each pixel.
Results = Iterator[tuple[Any, list[tuple[Any, list[Any]]]]]


class _Multiply(ABC):
    """What both have: a tile, its memory, and a thread's sums."""

    def __init__(self, tile: Tile, memory: Any, thread: Any) -> None:
        self._tile, self._memory = tile, memory
        self._slice, self._thread = (let(digit) for digit in split(thread, (1, tile.team)))
        self._sums = registers(tile.sums, "int32")
        with T.unroll(0, tile.sums) as i:
            store(self._sums, i, T.int32(0), 1)
        self._begin(self._thread)

    @abstractmethod
    def _begin(self, thread: Any) -> None:
        """Compute once what all steps share."""

    @abstractmethod
    def emit(self, stage: Any) -> None:
        """Add the products of a stage."""

    @abstractmethod
    def results(self) -> Results:
        """Yield each run of channels of the thread with the sums of all its pixels."""

    def _stage(self, stage: Any) -> tuple[Any, Any]:
        """Return where a stage's tile of x begins, and that of the weights."""
        tile = self._tile
        x_at = let((self._slice * tile.stages + stage) * tile.stage)
        return x_at, let(x_at + tile.pixels * tile.depth)

    @contextmanager
    def finished(self) -> Iterator[None]:
        """Add the slices' sums; emit what is inside for the first slice, which has them then."""
        tile = self._tile
        if tile.slices == 1:
            yield
            return
        do("sync")
        with when(self._slice > 0):
            for first in range(0, tile.sums, 4):
                words = [load(self._sums, first + i, 1) for i in range(4)]
                do("put_16", self._kept(self._slice - 1, first), *words)
        do("sync")
        with when(self._slice == 0):
            added = registers(4, "uint32")
            for other, first in product(range(tile.slices - 1), range(0, tile.sums, 4)):
                do("load_16", at(added, 0), self._kept(other, first))
                for i in range(4):
                    total = load(self._sums, first + i, 1) + T.Cast("int32", load(added, i, 1))
                    store(self._sums, first + i, total, 1)
            yield

    def _kept(self, other: Any, first: int) -> Any:
        """Return where another slice leaves four sums of this thread's: neighbours lie together."""
        row = other * (self._tile.sums // 4) + first // 4
        return at(self._memory, (row * self._tile.team + self._thread) * PIECE)

    def _address(self, start: Any, row: Any, place: Any) -> Any:
        return at(self._memory, start + row * self._tile.depth + place)


class Fragments(_Multiply):
    """A warp's `mma`: see PTX's fragments of m16n8k32 in `emulated.h`."""

    def _begin(self, thread: Any) -> None:
        tile = self._tile
        across = tile.channels // tile.part_channels
        warp, lane = let(T.truncdiv(thread, WARP)), let(T.truncmod(thread, WARP))
        self._pixel = let(T.truncdiv(warp, across) * tile.part_pixels)
        self._channel = let(T.truncmod(warp, across) * tile.part_channels)
        self._lane = lane
        self._x_row = let(self._pixel + T.truncmod(lane, 16))
        self._w_row = let(self._channel + T.truncdiv(lane, 16) * 8 + T.truncmod(lane, 8))
        self._swizzle = let(tile.swizzle(T.truncmod(lane, 8)))
        self._x = registers(tile.part_pixels // 16 * 4, "uint32")
        self._w = registers(tile.part_channels // 8 * 2, "uint32")

    def emit(self, stage: Any) -> None:
        """Add the products of a stage."""
        tile = self._tile
        x_at, w_at = self._stage(stage)
        for pair in range(tile.pieces // 2):
            x_place = let(self._place(pair, T.truncdiv(self._lane, 16)))
            w_place = let(self._place(pair, T.truncmod(T.truncdiv(self._lane, 8), 2)))
            for first in range(0, tile.part_pixels, 16):
                row = self._address(x_at, self._x_row + first, x_place)
                do("load_matrices", at(self._x, first // 4), row)
            for first in range(0, tile.part_channels, 16):
                row = self._address(w_at, self._w_row + first, w_place)
                do("load_matrices", at(self._w, first // 4), row)
            for m in range(tile.part_pixels // 16):
                for n in range(tile.part_channels // 8):
                    sums = at(self._sums, self._index(m, n))
                    do("mma", sums, at(self._x, 4 * m), at(self._w, 2 * n))

    def _place(self, pair: int, half: Any) -> Any:
        """Return where a lane's piece of a pair stands in its row."""
        return T.bitwise_xor(half + 2 * pair, self._swizzle) * PIECE

    def _index(self, m: int, n: int) -> int:
        """Return where the four sums of a fragment begin."""
        return (m * (self._tile.part_channels // 8) + n) * 4

    def results(self) -> Results:
        """Yield each run of channels with the sums of all pixels."""
        tile = self._tile
        column = let(T.truncmod(self._lane, 4) * tile.run)
        line = let(self._pixel + T.truncdiv(self._lane, 4))
        for first in range(0, tile.part_channels, 4 * tile.run):
            found: list[tuple[Any, list[Any]]] = []
            for m in range(tile.part_pixels // 16):
                for half in (0, 1):
                    numbers = [
                        self._index(m, first // 8 + pair) + half * 2 + side
                        for pair in range(tile.run // 2)
                        for side in (0, 1)
                    ]
                    sums = [load(self._sums, i, 1) for i in numbers]
                    found.append((line + (m * 16 + half * 8), sums))
            yield self._channel + first + column, found


class Dots(_Multiply):
    """A thread's own dot products of four bytes."""

    def _begin(self, thread: Any) -> None:
        tile = self._tile
        self._across = tile.channels // tile.part_channels
        self._down = tile.pixels // tile.part_pixels
        self._column = let(T.truncmod(thread, self._across))
        self._line = let(T.truncdiv(thread, self._across))
        self._w_swizzle = let(tile.swizzle(self._column))
        self._x_swizzle = let(tile.swizzle(self._line))
        self._x = registers(4, "uint32")
        self._w = registers(tile.part_channels * 4, "uint32")

    def emit(self, stage: Any) -> None:
        """Add the products of a stage."""
        tile = self._tile
        x_at, w_at = self._stage(stage)
        with loop(tile.pieces) as piece:
            w_place = let(T.bitwise_xor(piece, self._w_swizzle) * PIECE)
            x_place = let(T.bitwise_xor(piece, self._x_swizzle) * PIECE)
            for n in range(tile.part_channels):
                row = self._address(w_at, self._column + n * self._across, w_place)
                do("load_16", at(self._w, 4 * n), row)
            for m in range(tile.part_pixels):
                row = self._address(x_at, self._line + m * self._down, x_place)
                do("load_16", at(self._x, 0), row)
                self._multiply(m)

    def _multiply(self, m: int) -> None:
        """Add four dot products to each sum of a pixel."""
        columns = self._tile.part_channels
        with T.unroll(0, 4) as word, T.unroll(0, columns) as n:
            total = load(self._sums, m * columns + n, 1)
            x, w = load(self._x, word, 1), load(self._w, n * 4 + word, 1)
            store(self._sums, m * columns + n, get("int32", "dot", total, x, w), 1)

    def results(self) -> Results:
        """Yield the thread's run of channels with the sums of all its pixels."""
        rows, columns = self._tile.part_pixels, self._tile.part_channels
        found = [
            (
                self._line + m * self._down,
                [load(self._sums, m * columns + n, 1) for n in range(columns)],
            )
            for m in range(rows)
        ]
        yield self._column * columns, found

"""The part of each step's x and weights that a thread brings to shared memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from ..kernels.statements import T, let, load
from .dense_problem import Dense
from .threads import at, do, registers, split, when
from .tiles import PIECE


@dataclass(frozen=True)
class Piece:
    """Sixteen bytes.

    Attributes:
        source: Their address.
        place: Where they go, from a stage's begin on.
        alignment: Bytes that the source is a multiple of.
        within: Makes the frame for threads that have this piece.
    """

    source: Any
    place: Any
    alignment: int
    within: Callable[[], AbstractContextManager[Any]]


class Copies:
    """A thread's pieces: some of the tile of x, then some of the weights'."""

    def __init__(
        self,
        dense: Dense,
        tensors: dict[str, Any],
        memory: Any,
        thread: Any,
        place: tuple[Any, Any, Any],
    ) -> None:
        """Compute once what all steps share.

        Args:
            dense: The kernel.
            tensors: Its buffers, by name.
            memory: The shared memory.
            thread: The thread's number.
            place: The block's first pixel, its block of channels, and its group.
        """
        tile = dense.tile
        self._dense, self._memory = dense, memory
        self._x, self._weights = tensors["x"], tensors["weights"]
        self._rows_at_once = tile.team // tile.pieces
        self._slice, self._thread = (let(digit) for digit in split(thread, (1, tile.team)))
        self._piece = let(T.truncmod(self._thread, tile.pieces))
        self._row = let(T.truncdiv(self._thread, tile.pieces))
        first_pixel, block, group = place
        self._x_at: list[Any] = []
        for first in range(0, tile.pixels, self._rows_at_once):
            pixel = let(T.min(first_pixel + first + self._row, dense.count - 1))
            x_at = dense.place(pixel, dense.x_steps) + group * dense.group_steps[0]
            self._x_at.append(let(x_at))
        blocks = group * dense.blocks + block
        steps = dense.turns * tile.slices
        self._weights_at = let(blocks * (steps * tile.channels * tile.depth))
        count = len(self._x_at) + -(-tile.channels * tile.pieces // tile.team)
        self._waiting = None if dense.overlapped else registers(4 * count, "uint32")

    def emit(self, turn: Any, stage: Any) -> None:
        """Begin to copy the part of the slice's step in a turn to a stage."""
        start = self._start(stage)
        for piece in self._pieces(turn):
            with piece.within():
                do(f"copy_{piece.alignment}", at(self._memory, start + piece.place), piece.source)

    def fetch(self, turn: Any) -> None:
        """Load the part of the slice's step in a turn to registers."""
        for number, piece in enumerate(self._pieces(turn)):
            with piece.within():
                do(f"fetch_{piece.alignment}", at(self._waiting, 4 * number), piece.source)

    def put(self, stage: Any) -> None:
        """Store what was loaded to a stage."""
        start = self._start(stage)
        for number, piece in enumerate(self._pieces(0)):
            words = [load(self._waiting, 4 * number + i, 1) for i in range(4)]
            with piece.within():
                do("put_16", at(self._memory, start + piece.place), *words)

    def _start(self, stage: Any) -> Any:
        tile = self._dense.tile
        return let((self._slice * tile.stages + stage) * tile.stage)

    def _pieces(self, turn: Any) -> list[Piece]:
        """Return the thread's pieces of its slice's step in a turn."""
        step = let(self._slice + turn * self._dense.tile.slices)
        return [*self._of_x(step), *self._of_weights(step)]

    def _of_x(self, step: Any) -> list[Piece]:
        tile, window = self._dense.tile, self._dense.window
        number = step * tile.pieces + self._piece
        if window.pieces % (tile.pieces * tile.slices):
            number = T.min(number, window.pieces - 1)
        offset = let(window.offset(let(number)))
        # All rows of a thread, a multiple of 8 from each other, have the same swizzle.
        swizzled = T.bitwise_xor(self._piece, tile.swizzle(self._row)) * PIECE
        return [
            Piece(
                at(self._x, x_at + offset),
                (self._row + i * self._rows_at_once) * tile.depth + swizzled,
                self._dense.alignment,
                _below(self._row, tile.pixels - i * self._rows_at_once, self._rows_at_once),
            )
            for i, x_at in enumerate(self._x_at)
        ]

    def _of_weights(self, step: Any) -> list[Piece]:
        tile = self._dense.tile
        count = tile.channels * tile.pieces
        source = let(self._weights_at + step * (count * PIECE) + self._thread * PIECE)
        return [
            Piece(
                at(self._weights, source + first * PIECE),
                (self._thread + first) * PIECE + tile.pixels * tile.depth,
                PIECE,
                _below(self._thread, count - first, tile.team),
            )
            for first in range(0, count, tile.team)
        ]


def _below(number: Any, limit: int, most: int) -> Callable[[], AbstractContextManager[Any]]:
    """Return what makes a frame for threads whose number, below `most`, is below a limit."""
    return nullcontext if limit >= most else lambda: when(number < limit)

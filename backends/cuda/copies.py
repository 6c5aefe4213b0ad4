"""The part of each step's x and weights that a thread brings to shared memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..kernels.statements import T, let, load
from .threads import at, do, registers, when
from .tiles import PIECE

if TYPE_CHECKING:
    from .dense import Dense


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
        self._dense, self._memory, self._thread = dense, memory, thread
        self._x, self._weights = tensors["x"], tensors["weights"]
        self._rows_at_once = tile.threads // tile.pieces
        self._piece = let(T.truncmod(thread, tile.pieces))
        self._row = let(T.truncdiv(thread, tile.pieces))
        first_pixel, block, group = place
        self._x_at: list[Any] = []
        for first in range(0, tile.pixels, self._rows_at_once):
            pixel = let(T.min(first_pixel + first + self._row, dense.count - 1))
            x_at = dense.place(pixel, dense.x_steps) + group * dense.group_steps[0]
            self._x_at.append(let(x_at))
        blocks = group * dense.blocks + block
        self._weights_at = let(blocks * (dense.steps * tile.channels * tile.depth))
        count = len(self._x_at) + -(-tile.channels * tile.pieces // tile.threads)
        self._waiting = None if dense.overlapped else registers(4 * count, "uint32")

    def emit(self, step: Any, stage: Any) -> None:
        """Begin to copy a step's part to a stage."""
        start = self._start(stage)
        for piece in self._pieces(step):
            with piece.within():
                do(f"copy_{piece.alignment}", at(self._memory, start + piece.place), piece.source)

    def fetch(self, step: Any) -> None:
        """Load a step's part to registers."""
        for number, piece in enumerate(self._pieces(step)):
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
        return let(stage * ((tile.pixels + tile.channels) * tile.depth))

    def _pieces(self, step: Any) -> list[Piece]:
        """Return the thread's pieces of a step."""
        return [*self._of_x(step), *self._of_weights(step)]

    def _of_x(self, step: Any) -> list[Piece]:
        tile, window = self._dense.tile, self._dense.window
        number = step * tile.pieces + self._piece
        if window.pieces % tile.pieces:
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
                _below(self._thread, count - first, tile.threads),
            )
            for first in range(0, count, tile.threads)
        ]


def _below(number: Any, limit: int, most: int) -> Callable[[], AbstractContextManager[Any]]:
    """Return what makes a frame for threads whose number, below `most`, is below a limit."""
    return nullcontext if limit >= most else lambda: when(number < limit)

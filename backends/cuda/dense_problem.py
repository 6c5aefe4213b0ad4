"""What a kernel of a dense layer computes: the pixels, what each multiplies, how operands lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..kernels.statements import T
from .threads import split
from .tiles import PIECE, Tile

Steps = tuple[int, int, int]


@dataclass(frozen=True)
class Window:
    """Where the values that a pixel multiplies lie, from its window's first one on.

    Attributes:
        rows: Runs below each other.
        columns: Runs beside each other.
        length: Values of a run.
        down: Elements from one row of runs to the next.
        right: From one run of a row to the next.
    """

    rows: int
    columns: int
    length: int
    down: int
    right: int

    @property
    def run_pieces(self) -> int:
        """Pieces of 16 bytes of a run."""
        return -(-self.length // PIECE)

    @property
    def pieces(self) -> int:
        """Pieces of all runs."""
        return self.rows * self.columns * self.run_pieces

    def offset(self, piece: Any) -> Any:
        """Return where a piece lies, as an expression of its number."""
        row, column, part = split(piece, (self.rows, self.columns, self.run_pieces))
        return row * self.down + column * self.right + part * PIECE


@dataclass(frozen=True)
class Dense:
    """One kernel: everything but the scalars of its end is fixed.

    Attributes:
        tile: The work of a block.
        window: What a pixel multiplies.
        pixels: (images, lines, length) of the output.
        x_steps: Elements from one image, line and pixel's window to the next in x.
        y_steps: The same in y.
        other_steps: The same in the residual's other summand, if there is one.
        group_steps: Elements from one group of channels to the next in x and in y.
        groups: Groups of channels.
        blocks: Blocks of output channels of a group.
        alignment: Bytes that every address of a piece of x is a multiple of: 16, 8, 4 or 1.
        stored: Output channels of a group that are stored, padding included.
        unit: Channels that are stored together: 16, 8, 4 or 1.
        overlapped: Copies are asynchronous, from sm_80 on; otherwise there are two stages.
        real: Whether the result is float32, `sum * multiplier`.
    """

    tile: Tile
    window: Window
    pixels: tuple[int, int, int]
    x_steps: Steps
    y_steps: Steps
    other_steps: Steps | None
    group_steps: tuple[int, int]
    groups: int
    blocks: int
    alignment: int
    stored: int
    unit: int
    overlapped: bool
    real: bool = False

    @property
    def count(self) -> int:
        """Output pixels."""
        images, lines, length = self.pixels
        return images * lines * length

    @property
    def turns(self) -> int:
        """How often each slice takes a step of `tile.depth` bytes."""
        return -(-self.window.pieces // (self.tile.pieces * self.tile.slices))

    def place(self, pixel: Any, steps: Steps) -> Any:
        """Return where a pixel lies, as an expression of its number."""
        digits = split(pixel, self.pixels)
        return sum((d * s for d, s in zip(digits, steps, strict=True)), T.int32(0))

"""Convolution and linear layers on a GPU: an implicit matrix product of tiles in shared memory.

A block computes `tile.pixels` output pixels times `tile.channels` output channels. The windows of
its pixels are never written down: a thread copies pieces of 16 bytes from where they lie in x, run
by run (a kernel row's neighbours in memory, or one tap), and whole tiles of packed weights, some
steps ahead; from sm_80 on these copies are asynchronous. Padding is in memory already. What a piece
holds beyond its run meets weights of zero, so does what stands in for pieces beyond the last one;
pixels beyond the last one are computed like it and not stored.

"mma-s8": each warp loads fragments with `ldmatrix` and multiplies them with `mma.m16n8k32`.
"dp4a": each thread loads 16 bytes of each of its pixels and channels, and makes four dot products
of each pair. The sums never leave the registers: the layer's end is computed on them, and a thread
stores neighbouring channels together.

Reckoned, not measured: a warp of 64 x 64 sums reads 4 KiB of shared memory for 32 `mma`, half the
bandwidth of an A100's; eight threads that store side by side fill whole sectors of 32 bytes.

Why it is exact: products and sums are integers modulo 2**32; the packed bias holds
`bias - x_zero_point * sum(weights)`; for the end see `ending`.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from ..kernels.epilogue import SCALARS
from ..kernels.statements import T, kernel, let, loop
from .ending import Ending
from .multiply import Dots, Fragments
from .threads import Launch, at, do, shared, split, when
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
    real: bool = False

    @property
    def count(self) -> int:
        """Output pixels."""
        images, lines, length = self.pixels
        return images * lines * length

    @property
    def steps(self) -> int:
        """Steps of `tile.depth` bytes."""
        return -(-self.window.pieces // self.tile.pieces)

    def place(self, pixel: Any, steps: Steps) -> Any:
        """Return where a pixel lies, as an expression of its number."""
        digits = split(pixel, self.pixels)
        return sum((d * s for d, s in zip(digits, steps, strict=True)), T.int32(0))

    def emit(self, tensors: dict[str, Any]) -> None:
        """Emit the kernel's body on its buffers and numbers, by name."""
        tile = self.tile
        grid = (-(-self.count // tile.pixels), self.blocks, self.groups)
        with Launch(grid, tile.threads) as (pixel_block, block, group, thread):
            memory = shared(tile.shared)
            multiply = (Fragments if tile.instruction == "mma-s8" else Dots)(tile, memory, thread)
            first_pixel = let(pixel_block * tile.pixels)
            copies = _Copies(self, tensors, memory, thread)
            copies.begin(first_pixel, block, group)
            for step in range(tile.stages - 1):
                if step < self.steps:
                    copies.emit(step, step)
                do("commit")
            with loop(self.steps) as step:
                do("wait", tile.stages - 2)
                do("sync")
                ahead = let(step + (tile.stages - 1))
                with when(ahead < self.steps):
                    copies.emit(ahead, T.truncmod(ahead, tile.stages))
                do("commit")
                multiply.emit(T.truncmod(step, tile.stages))
            ending = Ending(self, tensors, first_pixel, block, group)
            for channel, pixels in multiply.results():
                ending.emit(channel, pixels)


class _Copies:
    """The part of each step's x and weights that a thread copies."""

    def __init__(self, dense: Dense, tensors: dict[str, Any], memory: Any, thread: Any) -> None:
        self._dense, self._memory = dense, memory
        self._x, self._weights = tensors["x"], tensors["weights"]
        self._thread = thread
        self._rows: list[Any] = []
        self._weights_at: Any = None

    def begin(self, first_pixel: Any, block: Any, group: Any) -> None:
        """Compute once what all steps share."""
        dense, tile = self._dense, self._dense.tile
        self._piece = let(T.truncmod(self._thread, tile.pieces))
        self._row = let(T.truncdiv(self._thread, tile.pieces))
        for first in range(0, tile.pixels, self._rows_at_once):
            pixel = let(T.min(first_pixel + first + self._row, dense.count - 1))
            x_at = dense.place(pixel, dense.x_steps) + group * dense.group_steps[0]
            self._rows.append(let(x_at))
        blocks = group * dense.blocks + block
        self._weights_at = let(blocks * (dense.steps * tile.channels * tile.depth))

    @property
    def _rows_at_once(self) -> int:
        return self._dense.tile.threads // self._dense.tile.pieces

    def emit(self, step: Any, stage: Any) -> None:
        """Copy a step's part to a stage of the shared memory."""
        tile, window = self._dense.tile, self._dense.window
        start = let(stage * ((tile.pixels + tile.channels) * tile.depth))
        piece = step * tile.pieces + self._piece
        if window.pieces % tile.pieces:
            piece = T.min(piece, window.pieces - 1)
        offset = let(window.offset(let(piece)))
        # A multiple of 8 rows at once: all of them have the same swizzle.
        place = T.bitwise_xor(self._piece, tile.swizzle(self._row)) * PIECE
        x_to = let(start + self._row * tile.depth + place)
        for number, x_at in enumerate(self._rows):
            to = at(self._memory, x_to + number * self._rows_at_once * tile.depth)
            first = number * self._rows_at_once
            with _within(self._row, tile.pixels - first, self._rows_at_once):
                do(f"copy_{self._dense.alignment}", to, at(self._x, x_at + offset))
        weights = tile.channels * tile.depth
        source = let(self._weights_at + step * weights + self._thread * PIECE)
        target = let(start + (tile.pixels * tile.depth) + self._thread * PIECE)
        for first in range(0, weights, tile.threads * PIECE):
            with _within(self._thread, (weights - first) // PIECE, tile.threads):
                do("copy_16", at(self._memory, target + first), at(self._weights, source + first))


def _within(number: Any, limit: int, most: int) -> Any:
    """Return a frame for what threads below a limit do, of `most` that there are."""
    return nullcontext() if limit >= most else when(number < limit)


def build(tile: tuple[Any, ...], window: tuple[int, ...], **layout: Any) -> Any:
    """Return the kernel: x, weights, bias, multiplier, y and other, then `epilogue.SCALARS`.

    Args:
        tile: The values of a `Tile`.
        window: The values of a `Window`.
        layout: What `Dense` takes beside them.
    """
    dense = Dense(tile=Tile(*tile), window=Window(*window), **layout)
    pointers = [("x", "uint8"), ("weights", "int8"), ("bias", "int32")]
    pointers += [("multiplier", "float32"), ("y", "float32" if dense.real else "uint8")]
    pointers += [("other", "uint8")]

    def body(**tensors: Any) -> None:
        dense.emit(tensors)

    return kernel(pointers, SCALARS, body)

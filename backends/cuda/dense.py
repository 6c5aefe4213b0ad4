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

from dataclasses import dataclass
from typing import Any

from ..kernels.epilogue import SCALARS
from ..kernels.statements import T, kernel, let, loop
from .copies import Copies
from .ending import Ending
from .multiply import Dots, Fragments
from .threads import Launch, do, shared, split, when
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
        # Blocks that run together share their pixels and their weights, about as many of both.
        grid = (-(-self.count // tile.pixels) * self.blocks, 1, self.groups)
        with Launch(grid, tile.threads) as (number, _, group, thread):
            memory = shared(tile.shared)
            multiply = (Fragments if tile.instruction == "mma-s8" else Dots)(tile, memory, thread)
            pixel_block, block = (let(digit) for digit in split(number, (1, self.blocks)))
            first_pixel = let(pixel_block * tile.pixels)
            copies = Copies(self, tensors, memory, thread, (first_pixel, block, group))
            emit_steps = self._overlap if self.overlapped else self._alternate
            emit_steps(copies, multiply)
            ending = Ending(self, tensors, first_pixel, block, group)
            for channel, pixels in multiply.results():
                ending.emit(channel, pixels)

    def _overlap(self, copies: Copies, multiply: Fragments | Dots) -> None:
        """Emit the steps: copies run by themselves, all stages but one ahead."""
        stages = self.tile.stages
        for step in range(stages - 1):
            if step < self.steps:
                copies.emit(step, step)
            do("commit")
        with loop(self.steps) as step:
            do("wait", stages - 2)
            do("sync")
            ahead = let(step + (stages - 1))
            with when(ahead < self.steps):
                copies.emit(ahead, T.truncmod(ahead, stages))
            do("commit")
            multiply.emit(T.truncmod(step, stages))

    def _alternate(self, copies: Copies, multiply: Fragments | Dots) -> None:
        """Emit the steps: what a thread copies waits in its registers while it multiplies."""
        if self.steps:
            copies.fetch(0)
            copies.put(0)
        with loop(self.steps) as step:
            do("sync")
            with when(step + 1 < self.steps):
                copies.fetch(step + 1)
            multiply.emit(T.truncmod(step, 2))
            with when(step + 1 < self.steps):
                copies.put(T.truncmod(step + 1, 2))


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

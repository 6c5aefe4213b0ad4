"""Convolution and linear layers on a GPU: an implicit matrix product of tiles in shared memory.

A block computes `tile.pixels` output pixels times `tile.channels` output channels. The windows of
its pixels are never written down: a thread copies pieces of 16 bytes from where they lie in x, run
by run (a kernel row's neighbours in memory, or one tap), and whole tiles of packed weights, some
steps ahead; from sm_80 on these copies are asynchronous. Padding is in memory already. What a piece
holds beyond its run meets weights of zero, so does what stands in for pieces beyond the last one;
pixels beyond the last one are computed like it and not stored.

Layers of few pixels and long sums, as at batch 1, don't fill a GPU with blocks. A tile of several
slices has as many teams of threads, each with its own steps and stages; in the end the first one
adds the others' sums, which lie in shared memory then.

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

from typing import Any

from ..kernels.epilogue import SCALARS
from ..kernels.statements import T, kernel, let, loop
from .copies import Copies
from .dense_problem import Dense, Window
from .ending import Ending
from .multiply import Dots, Fragments
from .threads import Launch, do, shared, split, when
from .tiles import Tile


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
        _emit(dense, tensors)

    return kernel(pointers, SCALARS, body)


def _emit(dense: Dense, tensors: dict[str, Any]) -> None:
    """Emit the kernel's body on its buffers and numbers, by name."""
    tile = dense.tile
    # Blocks that run together share their pixels and their weights, about as many of both.
    grid = (-(-dense.count // tile.pixels) * dense.blocks, 1, dense.groups)
    with Launch(grid, tile.threads) as (number, _, group, thread):
        memory = shared(tile.shared)
        multiply = (Fragments if tile.instruction == "mma-s8" else Dots)(tile, memory, thread)
        pixel_block, block = (let(digit) for digit in split(number, (1, dense.blocks)))
        first_pixel = let(pixel_block * tile.pixels)
        copies = Copies(dense, tensors, memory, thread, (first_pixel, block, group))
        emit_steps = _overlap if dense.overlapped else _alternate
        emit_steps(dense, copies, multiply)
        with multiply.finished():
            ending = Ending(dense, tensors, first_pixel, block, group)
            for channel, pixels in multiply.results():
                ending.emit(channel, pixels)


def _overlap(dense: Dense, copies: Copies, multiply: Fragments | Dots) -> None:
    """Emit the steps: copies run by themselves, all stages but one ahead."""
    stages = dense.tile.stages
    for turn in range(stages - 1):
        if turn < dense.turns:
            copies.emit(turn, turn)
        do("commit")
    with loop(dense.turns) as turn:
        do("wait", stages - 2)
        do("sync")
        ahead = let(turn + (stages - 1))
        with when(ahead < dense.turns):
            copies.emit(ahead, T.truncmod(ahead, stages))
        do("commit")
        multiply.emit(T.truncmod(turn, stages))


def _alternate(dense: Dense, copies: Copies, multiply: Fragments | Dots) -> None:
    """Emit the steps: what a thread copies waits in its registers while it multiplies."""
    if dense.turns:
        copies.fetch(0)
        copies.put(0)
    with loop(dense.turns) as turn:
        do("sync")
        with when(turn + 1 < dense.turns):
            copies.fetch(turn + 1)
        multiply.emit(T.truncmod(turn, 2))
        with when(turn + 1 < dense.turns):
            copies.put(T.truncmod(turn + 1, 2))

"""How a block of threads shares a tile of a dense layer: rows, swizzled pieces, who has which sums.

A tile of x is `pixels` rows, one of the weights `channels` rows, each of `depth` bytes at a time,
in pieces of 16 bytes. Pieces that a warp reads together, of eight neighbouring rows, would meet in
the same banks of shared memory; so a piece's place in its row is its number XORed with `swizzle`,
which gives them eight different groups of banks, for `ldmatrix` and loads of 16 bytes alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PIECE = 16
WARP = 32


@dataclass(frozen=True)
class Tile:
    """The work of a block.

    Attributes:
        instruction: "dp4a": each thread has a part of its own; "mma-s8": each warp.
        pixels: Output pixels.
        channels: Output channels.
        part_pixels: Output pixels of a part.
        part_channels: Output channels of a part.
        depth: Bytes of x, and of the weights, that a step multiplies.
        stages: Steps in shared memory at once: one is multiplied, the others arrive.
        slices: Teams of threads with all parts each, which take the steps in turns; in the end
            their sums are added. For layers with few outputs and long sums.
    """

    instruction: str
    pixels: int
    channels: int
    part_pixels: int
    part_channels: int
    depth: int
    stages: int
    slices: int = 1

    @property
    def parts(self) -> int:
        """Parts of the tile."""
        return self.pixels // self.part_pixels * (self.channels // self.part_channels)

    @property
    def team(self) -> int:
        """Threads of a slice."""
        return self.parts * (WARP if self.instruction == "mma-s8" else 1)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.team * self.slices

    @property
    def pieces(self) -> int:
        """Pieces of a row."""
        return self.depth // PIECE

    @property
    def stage(self) -> int:
        """Bytes of a step in shared memory: the tile of x, then the weights'."""
        return (self.pixels + self.channels) * self.depth

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        return self.slices * self.stages * self.stage

    @property
    def sums(self) -> int:
        """int32 sums of a thread."""
        return self.pixels * self.channels // self.team

    @property
    def run(self) -> int:
        """Neighbouring channels that one thread has, and stores together."""
        if self.instruction == "dp4a":
            return self.part_channels
        return min(self.part_channels, 64) // 4

    def swizzle(self, row: int) -> int:
        """Return what the number of a row's piece is XORed with to get its place."""
        return row % 8 // (8 // self.pieces)

    def channel_order(self) -> NDArray[np.int64]:
        """Return the channel of each row of the weights' tile: [channels].

        A thread of an `mma` has two neighbouring columns of each 8; a thread with dot products of
        its own has every so-many-th row, for the banks' sake. Either way its channels are
        neighbours in y.
        """
        row = np.arange(self.channels)
        if self.instruction == "dp4a":
            across = self.channels // self.part_channels
            return row % across * self.part_channels + row // across
        span = 4 * self.run
        within = row % span
        return row - within + within % 8 // 2 * self.run + within // 8 * 2 + within % 2

"""How a tile's int32 sums lie in registers, as instructions want them, and how they become results.

Most instructions add to one channel a lane. A product of matrices adds to two pixels by two
channels; one that sums neighbours pairwise leaves four sums in a register, whose own sum is one
channel's. Tiles are the same in all three cases (see `tiles`): only how sums begin, and how a
vector of one pixel's channels is read from them, differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import arm
from .statements import T, let, load, local, store


@dataclass(frozen=True)
class Sums:
    """The sums of a tile's pixels, `vectors` vectors of output channels each.

    Attributes:
        lanes: int32 lanes of a register, and output channels of a vector.
        vectors: Vectors of a block.
        pixels: Neighbouring pixels whose sums a register holds: 1 or 2.
        parts: Lanes that are one channel's sum together: 1 or all.
    """

    lanes: int
    vectors: int
    pixels: int = 1
    parts: int = 1

    @property
    def channels(self) -> int:
        """Output channels of a register."""
        return self.lanes // (self.pixels * self.parts)

    @property
    def registers(self) -> int:
        """Registers of one group of pixels."""
        return self.vectors * self.lanes // self.channels

    def groups(self, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return one value a pixel as those of each group; the last pixel fills the last group."""
        missing = -len(values) % self.pixels
        whole = [*values, *[values[-1]] * missing]
        return [tuple(whole[i : i + self.pixels]) for i in range(0, len(whole), self.pixels)]

    def begin(self, pixels: int, bias: Any, first: Any) -> list[Any]:
        """Return buffers of sums, one a group: TVM keeps no more than 1 KiB of one on the stack.

        Args:
            pixels: Of the tile.
            bias: The buffer of biases.
            first: The block's first bias in it.
        """
        groups = -(-pixels // self.pixels)
        sums = [local(self.registers * self.lanes, "int32") for _ in range(groups)]
        for register in range(self.registers):
            value = let(self._first(bias, first, register))
            for group in sums:
                store(group, register * self.lanes, value, self.lanes)
        return sums

    def _first(self, bias: Any, first: Any, register: int) -> Any:
        if self.parts > 1:  # the bias comes last
            return T.broadcast(T.int32(0), self.lanes)
        vector, rest = divmod(register * self.channels, self.lanes)
        loaded = load(bias, first + vector * self.lanes, self.lanes)
        if self.pixels == 1:
            return loaded
        own = list(range(rest, rest + self.channels))
        return T.Shuffle([let(loaded)], own * self.pixels)

    def total(self, sums: Sequence[Any], pixel: int, vector: int, bias: Any, first: Any) -> Any:
        """Return a vector of output channels of one pixel.

        Args:
            sums: What `begin` returned.
            pixel: Which of the tile.
            vector: Which of the block.
            bias: The buffer of biases.
            first: The block's first bias in it.
        """
        count = self.lanes // self.channels
        registers = range(vector * count, (vector + 1) * count)
        group = sums[pixel // self.pixels]
        found = [load(group, register * self.lanes, self.lanes) for register in registers]
        if self.parts > 1:
            return arm.sums_of_each(found) + load(bias, first + vector * self.lanes, self.lanes)
        if self.pixels == 1:
            return found[0]
        own = pixel % self.pixels * self.channels
        starts = [i * self.lanes + own for i in range(count)]
        return T.Shuffle(found, [start + c for start in starts for c in range(self.channels)])

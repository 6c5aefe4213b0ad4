"""Several values of each channel side by side, as dot products want them; and back to bytes.

Memory holds channels side by side: 64 of one pixel are a vector of bytes. A dot product wants the
values that it sums side by side instead: those of one channel in four rows, say. `vpunpckl` and
`vpunpckh` interleave two vectors inside each 128-bit part, so what comes out holds groups of four
channels in an order of its own; packed weights share it, and `vpackss`, `vpackus` undo it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import arm
from .instructions import pair_dot
from .narrowing import four_to_bytes, words
from .statements import T, let


@dataclass(frozen=True)
class Interleaving:
    """How one instruction reads interleaved vectors.

    Attributes:
        instruction: "vpdpbusd", "sdot" or "usdot": four bytes a channel; "vpdpwssd" or "vpmaddwd":
            two words; "smlal": one word.
        lanes: int32 lanes of a vector.
    """

    instruction: str
    lanes: int

    @property
    def group(self) -> int:
        """Values of a channel that are multiplied at once."""
        return {"vpdpwssd": 2, "vpmaddwd": 2, "smlal": 1}.get(self.instruction, 4)

    @property
    def parts(self) -> int:
        """Vectors of int32 that one vector of channels becomes."""
        return 2 if self.group == 2 else 4

    @property
    def shift(self) -> int:
        """What is taken from each activation, for an instruction that takes signed ones."""
        return 128 if self.instruction == "sdot" else 0

    @property
    def channels(self) -> int:
        """Channels of a vector."""
        return self.lanes * self.parts

    @property
    def weight(self) -> str:
        """Dtype of packed weights."""
        return "int8" if self.group == 4 else "int16"

    def widened(self, bytes_: Any) -> Any:
        """Return loaded bytes as the instruction's operands: words need a conversion."""
        if self.shift:
            moved = T.bitwise_xor(bytes_, T.broadcast(T.uint8(self.shift), self.channels))
            return let(T.reinterpret(f"int8x{self.channels}", moved))
        return bytes_ if self.group == 4 else let(T.Cast(f"int16x{self.channels}", bytes_))

    def interleaved(self, rows: Sequence[Any | None]) -> list[Any]:
        """Return `parts` vectors of the `group` rows, channel by channel; None: any values."""
        first = next(row for row in rows if row is not None)
        wide = 8 if self.group == 2 else 16
        level = [first if row is None else row for row in rows]
        if self.group == 1:
            starts = range(0, self.channels, self.lanes)
            return [T.Shuffle([first], list(range(i, i + self.lanes))) for i in starts]
        if self.group == 2:
            return self._zipped(level[0], level[1], wide, 1)
        upper = self._zipped(level[0], level[1], wide, 1)
        lower = self._zipped(level[2], level[3], wide, 1)
        return [
            part for a, b in zip(upper, lower, strict=True) for part in self._zipped(a, b, wide, 2)
        ]

    def _zipped(self, a: Any, b: Any, wide: int, size: int) -> list[Any]:
        """Interleave pieces of `size` elements of both, in each part of `wide` elements."""
        count = self.channels
        return [
            let(
                T.Shuffle(
                    [a, b],
                    [
                        side * count + part + half * (wide // 2) + piece + i
                        for part in range(0, count, wide)
                        for piece in range(0, wide // 2, size)
                        for side in (0, 1)
                        for i in range(size)
                    ],
                )
            )
            for half in (0, 1)
        ]

    def multiply(self, total: Any, values: Any, weights: Any) -> Any:
        """Return the int32 sums plus the dot products: exact, modulo 2**32."""
        kind, bits = f"int32x{self.lanes}", 32 * self.lanes
        if self.instruction == "vpmaddwd":
            return total + pair_dot(self.lanes, values, weights)
        if self.instruction == "smlal":
            return total + arm.long_product(values, weights)
        if self.instruction == "sdot":
            return arm.sdot(self.lanes, total, values, weights)
        if self.instruction == "usdot":
            return arm.usdot(self.lanes, total, values, weights)
        name = f"llvm.x86.avx512.{self.instruction}.{bits}"
        return T.call_llvm_pure_intrin(kind, name, total, values, weights)

    def narrowed(self, products: Sequence[Any], zero_point: Any, lo: Any, hi: Any) -> Any:
        """Return `clamp(rne(product) + zero_point, lo, hi)` as bytes in the channels' order.

        Args:
            products: float32 vectors, `parts` of them, each value below 2**31.
            zero_point: int16 scalar, 0..255.
            lo: uint8 scalar.
            hi: uint8 scalar.
        """
        if self.parts == 4:
            return four_to_bytes(products, zero_point, (lo, hi), self.lanes)
        (both,) = words(products, zero_point, self.lanes)
        count = self.channels
        floor, ceiling = (T.broadcast(T.Cast("int16", bound), count) for bound in (lo, hi))
        return let(T.Cast(f"uint8x{count}", T.max(T.min(both, ceiling), floor)))

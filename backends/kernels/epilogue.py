"""What ends every layer: requantize, clamp, perhaps add another activation, narrow, store.

Why it is exact: `clamp(rne(float32(total) * multiplier))` is one IEEE multiplication and one
rounding, with integers as bounds, so that clamping before or after the rounding gives the same. How
products become bytes, and why that is exact too, is said in `narrowing`. A residual is added in
float32, in which nothing rounds: each product is an integer below 2**23 in magnitude (a difference
of two bytes times a factor of at most 32767), the sum one below 2**24, whether or not LLVM
contracts a multiplication and an addition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import arm
from .instructions import spread, vector
from .narrowing import bounded, clamped, four_to_bytes, in_order
from .statements import T, let, load, store

# Numbers that every layer's kernel takes after its pointers; see `Layer.epilogue`.
SCALARS = (
    ("lo", "int32"),
    ("hi", "int32"),
    ("zero_point", "int32"),
    ("own_lo", "float32"),
    ("own_hi", "float32"),
    ("own_factor", "float32"),
    ("other_factor", "float32"),
    ("other_offset", "float32"),
    ("sum_scale", "float32"),
)


@dataclass(frozen=True)
class Result:
    """One vector of a layer's sums, and where its results go.

    Attributes:
        total: int32 sums.
        multiplier: float32 [lanes].
        y_at: Where in y.
        other_at: Where in the other summand, if there is one.
        beside: Whether it follows the result before it in y.
        half: A condition under which only the first half of the lanes is stored; None: never.
    """

    total: Any
    multiplier: Any
    y_at: Any
    other_at: Any | None = None
    beside: bool = False
    half: Any | None = None


@dataclass(frozen=True)
class Epilogue:
    """The end of a layer.

    Attributes:
        lanes: int32 lanes of a vector.
        residual: Whether another activation is added.
        unbounded: Whether products that are rounded may reach 2**31.
        clamped: Whether the bounds of what is stored are others than 0 and 255.
        shifted: Whether the zero point of what is stored is another than 0.
    """

    lanes: int
    residual: bool
    unbounded: bool = True
    clamped: bool = True
    shifted: bool = True

    def store(self, values: Mapping[str, Any], results: Sequence[Result]) -> None:
        """Store vectors of results as uint8, four at a time.

        Args:
            values: The kernel's tensors and numbers.
            results: Those side by side in y follow each other.
        """
        zero_point = T.Cast("int16", values["zero_point"]) if self.shifted else None
        bounds = [T.Cast("uint8", values[name]) for name in ("lo", "hi")] if self.clamped else None
        for first in range(0, len(results), 4):
            group = results[first : first + 4]
            products = [let(self._product(values, result)) for result in group]
            products += products[-1:] * (4 - len(group))
            # LLVM 22 loops for ever on some vectors that are clamped, reordered and then halved.
            late = any(result.half is not None for result in group)
            narrow = four_to_bytes(products, zero_point, None if late else bounds, self.lanes)
            narrow = in_order(narrow, self.lanes)
            for begin, count in _runs(group):
                piece = narrow if count == 4 else let(self._piece(narrow, begin, count))
                rest = bounds if late else None
                self._store_piece(values["y"], piece, count * self.lanes, group[begin], rest)

    def _piece(self, narrow: Any, begin: int, count: int) -> Any:
        """Return the bytes of `count` of four vectors."""
        if self.lanes != arm.LANES:
            where = range(begin * self.lanes, (begin + count) * self.lanes)
            return T.Shuffle([narrow], list(where))
        # As numbers of four bytes: of bytes LLVM makes moves one by one on ARM.
        numbers = let(T.reinterpret("int32x4", narrow))
        chosen = T.Shuffle([numbers], list(range(begin, begin + count)))
        return T.reinterpret(vector("uint8", 4 * count), chosen)

    def _product(self, values: Mapping[str, Any], result: Result) -> Any:
        """Return float32 products that only have to be rounded, moved and clamped."""
        kind = vector("float32", self.lanes)
        product = T.Cast(kind, result.total) * result.multiplier
        if self.residual:
            product = self._sum(values, product, result.other_at)
        return bounded(product, self.lanes) if self.unbounded else product

    def _sum(self, values: Mapping[str, Any], product: Any, other_at: Any) -> Any:
        """Return the sum of add_i8 times its scale."""
        kind = vector("float32", self.lanes)

        def number(name: str) -> Any:
            return spread(values[name], self.lanes)

        clamped = T.max(T.min(product, number("own_hi")), number("own_lo"))
        own = T.call_llvm_pure_intrin(kind, "llvm.rint", clamped)
        stored = load(values["other"], other_at, self.lanes)
        other = T.Cast(kind, T.Cast(vector("int32", self.lanes), stored))
        other = other * number("other_factor") + number("other_offset")
        return (own * number("own_factor") + other) * number("sum_scale")

    def _store_piece(
        self, y: Any, piece: Any, count: int, result: Result, bounds: Sequence[Any] | None
    ) -> None:
        if result.half is None:
            store(y, result.y_at, clamped(piece, bounds, count), count)
            return
        few = self.lanes // 2
        with T.If(result.half):
            with T.Then():
                # As one number: LLVM 22 loops for ever on some shuffles that take half of a vector.
                first = T.Shuffle([T.reinterpret(f"int{8 * few}x2", piece)], [0])
                start = T.reinterpret(vector("uint8", few), first)
                store(y, result.y_at, clamped(start, bounds, few), few)
            with T.Else():
                store(y, result.y_at, clamped(piece, bounds, count), count)


def _runs(results: Sequence[Result]) -> list[tuple[int, int]]:
    """Return (first, count) of results that can be stored together."""
    runs: list[tuple[int, int]] = []
    for i, result in enumerate(results):
        if i and result.beside and result.half is None and results[i - 1].half is None:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((i, 1))
    return runs

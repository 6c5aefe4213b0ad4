"""What ends every layer: requantize, clamp, perhaps add another activation, narrow, store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .instructions import nearest_int, spread, vector
from .narrowing import bounded, four_to_bytes, in_order
from .statements import T, let, load, store

# Numbers that every layer's kernel takes after its pointers; see `lower.layer`.
SCALARS = (
    ("lo", "int32"),
    ("hi", "int32"),
    ("zero_point", "int32"),
    ("self_factor", "int32"),
    ("other_factor", "int32"),
    ("offset", "int32"),
    ("sum_scale", "float32"),
    ("sum_lo", "int32"),
    ("sum_hi", "int32"),
    ("sum_zero_point", "int32"),
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
    """The end of a layer for one vector of output channels.

    Attributes:
        lanes: int32 lanes of a vector.
        storage: Dtype of y.
        residual: Whether another activation is added.
        plain: Whether the zero point of what is stored is 0.
        unbounded: Whether products of sums and multipliers may reach 2**31.
    """

    lanes: int
    storage: str
    residual: bool
    plain: bool
    unbounded: bool = True

    def bound(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the kernel's values, bounds as vectors of float32, computed once where called."""
        found = dict(values)
        for name in ("lo", "hi", "sum_lo", "sum_hi"):
            found[f"{name}_float"] = let(spread(T.Cast("float32", values[name]), self.lanes))
        return found

    def store(
        self,
        values: Mapping[str, Any],
        total: Any,
        multiplier: Any,
        y_at: Any,
        other_at: Any | None,
        half: Any | None = None,
    ) -> None:
        """Store one vector of results.

        Args:
            values: What `bound` returned.
            total: int32 sums.
            multiplier: float32 [lanes].
            y_at: Where in y.
            other_at: Where in the other summand.
            half: A condition under which only the first half of the lanes is stored; None: never.
        """
        lanes = self.lanes
        product = self._last_product(values, total, multiplier, other_at)
        result = let(self._rounded(values, product, self._last, keep_zero_point=not self.plain))
        narrowed = let(T.Cast(vector(self.storage, lanes), result))
        self._store_half(values, narrowed, y_at, half)

    def store_bytes(self, values: Mapping[str, Any], results: Sequence[Result]) -> None:
        """Store several vectors of results as uint8, four at a time: see `narrowing`.

        Args:
            values: What `bound` returned.
            results: Those side by side in y follow each other.
        """
        lanes, last = self.lanes, self._last
        zero_point = T.Cast("int16", values[f"{last}zero_point"])
        lo, hi = (
            T.Cast("uint8", values[f"{last}{name}"] + values[f"{last}zero_point"])
            for name in ("lo", "hi")
        )
        for first in range(0, len(results), 4):
            group = results[first : first + 4]
            products = [
                self._last_product(values, r.total, r.multiplier, r.other_at) for r in group
            ]
            if self.unbounded and not self.residual:
                products = [bounded(product, lanes) for product in products]
            products = [let(product) for product in products]
            products += products[-1:] * (4 - len(group))
            narrow = in_order(four_to_bytes(products, zero_point, lo, hi, lanes), lanes)
            for begin, count in _runs(group):
                where = list(range(begin * lanes, (begin + count) * lanes))
                piece = narrow if count == 4 else T.Shuffle([narrow], where)
                if group[begin].half is None:
                    store(values["y"], group[begin].y_at, piece, count * lanes)
                else:
                    self._store_half(values, let(piece), group[begin].y_at, group[begin].half)

    @property
    def _last(self) -> str:
        """How the names of the last step's numbers begin."""
        return "sum_" if self.residual else ""

    def _last_product(
        self, values: Mapping[str, Any], total: Any, multiplier: Any, other_at: Any | None
    ) -> Any:
        """Return the float32 product that only has to be rounded, clamped and moved."""
        lanes = self.lanes
        product = T.Cast(vector("float32", lanes), total) * multiplier
        if not self.residual:
            return product
        result = let(self._rounded(values, product, "", keep_zero_point=True))
        other = T.Cast(vector("int32", lanes), load(values["other"], other_at, lanes))
        joined = (
            result * spread(values["self_factor"], lanes)
            + other * spread(values["other_factor"], lanes)
            + spread(values["offset"], lanes)
        )
        scale = spread(values["sum_scale"], lanes)
        return T.Cast(vector("float32", lanes), joined) * scale

    def _store_half(
        self, values: Mapping[str, Any], narrowed: Any, y_at: Any, half: Any | None
    ) -> None:
        lanes = self.lanes
        if half is None:
            store(values["y"], y_at, narrowed, lanes)
            return
        with T.If(half):
            with T.Then():
                # As one number: LLVM 22 loops for ever on some shuffles that take half of a vector.
                first = T.Shuffle([T.reinterpret(f"int{4 * lanes}x2", narrowed)], [0])
                few = T.reinterpret(vector(self.storage, lanes // 2), first)
                store(values["y"], y_at, few, lanes // 2)
            with T.Else():
                store(values["y"], y_at, narrowed, lanes)

    def _rounded(
        self, values: Mapping[str, Any], product: Any, prefix: str, *, keep_zero_point: bool
    ) -> Any:
        """Return `clamp(rne(product), lo, hi) + zero_point`.

        One IEEE multiplication and one rounding: nothing that LLVM could contract.
        """
        clamped = T.max(T.min(product, values[f"{prefix}hi_float"]), values[f"{prefix}lo_float"])
        rounded = nearest_int(clamped, self.lanes)
        if not keep_zero_point:
            return rounded
        return rounded + spread(values[f"{prefix}zero_point"], self.lanes)


def _runs(results: Sequence[Result]) -> list[tuple[int, int]]:
    """Return (first, count) of results that can be stored together."""
    runs: list[tuple[int, int]] = []
    for i, result in enumerate(results):
        if i and result.beside and result.half is None and results[i - 1].half is None:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((i, 1))
    return runs

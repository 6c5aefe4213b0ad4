"""What ends every layer: requantize, clamp, perhaps add another activation, narrow, store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .instructions import nearest_int, spread, vector
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
class Epilogue:
    """The end of a layer for one vector of output channels.

    Attributes:
        lanes: int32 lanes of a vector.
        storage: Dtype of y.
        residual: Whether another activation is added.
        plain: Whether the zero point of what is stored is 0.
    """

    lanes: int
    storage: str
    residual: bool
    plain: bool

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
        # The zero point of what is stored alone may be left out.
        result = let(
            self._requantize(
                values, total, multiplier, "", keep_zero_point=self.residual or not self.plain
            )
        )
        if self.residual:
            other = T.Cast(vector("int32", lanes), load(values["other"], other_at, lanes))
            total = (
                result * spread(values["self_factor"], lanes)
                + other * spread(values["other_factor"], lanes)
                + spread(values["offset"], lanes)
            )
            scale = spread(values["sum_scale"], lanes)
            result = let(
                self._requantize(values, total, scale, "sum_", keep_zero_point=not self.plain)
            )
        narrowed = let(T.Cast(vector(self.storage, lanes), result))
        if half is None:
            store(values["y"], y_at, narrowed, lanes)
            return
        with T.If(half):
            with T.Then():
                few = T.Shuffle([narrowed], list(range(lanes // 2)))
                store(values["y"], y_at, few, lanes // 2)
            with T.Else():
                store(values["y"], y_at, narrowed, lanes)

    def _requantize(
        self,
        values: Mapping[str, Any],
        total: Any,
        multiplier: Any,
        prefix: str,
        *,
        keep_zero_point: bool,
    ) -> Any:
        """Return `clamp(rne(float32(total) * multiplier), lo, hi) + zero_point`.

        One IEEE multiplication and one rounding: nothing that LLVM could contract.
        """
        product = T.Cast(vector("float32", self.lanes), total) * multiplier
        clamped = T.max(T.min(product, values[f"{prefix}hi_float"]), values[f"{prefix}lo_float"])
        rounded = nearest_int(clamped, self.lanes)
        if not keep_zero_point:
            return rounded
        return rounded + spread(values[f"{prefix}zero_point"], self.lanes)

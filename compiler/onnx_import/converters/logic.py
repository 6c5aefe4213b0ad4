"""Converters of comparisons, logic and choice."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ..call import Call
from ..registry import converts
from ..size_values import any_sizes, as_sizes, refusal, sized, spread
from ..values import Constant, Value
from .elementwise import number_of, widened

aten = torch.ops.aten

_COMPARISONS: dict[str, tuple[Any, Any]] = {
    "Equal": (aten.eq.Tensor, aten.eq.Scalar),
    "Greater": (aten.gt.Tensor, aten.gt.Scalar),
    "GreaterOrEqual": (aten.ge.Tensor, aten.ge.Scalar),
    "Less": (aten.lt.Tensor, aten.lt.Scalar),
    "LessOrEqual": (aten.le.Tensor, aten.le.Scalar),
}


@converts(*_COMPARISONS, since=7)
@widened
def convert_comparison(call: Call) -> Value:
    if any_sizes(call):
        return _compare_sizes(call)
    a, b = call.operand(0), call.operand(1)
    tensors, scalar = _COMPARISONS[call.operator]
    value = number_of(b, a, call)
    return call.emit(tensors, a, b) if value is None else call.emit(scalar, a, value)


def _compare_sizes(call: Call) -> Value:
    """Sizes are above -1, which is what exported shape arithmetic compares them with."""
    first, second = (as_sizes(value) for value in call.inputs)
    if call.operator != "Equal" or first is None or second is None:
        raise refusal(call)
    count = max(len(first.items), len(second.items))
    pairs = zip(spread(call, first, count), spread(call, second, count), strict=True)
    return call.make(torch.tensor([_same(call, a, b) for a, b in pairs]))


def _same(call: Call, a: int | fx.Node, b: int | fx.Node) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if a is b:
        return True
    if (isinstance(a, int) and a < 0) or (isinstance(b, int) and b < 0):
        return False
    raise refusal(call)


@converts("Where", since=9)
def convert_where(call: Call) -> Value:
    if any_sizes(call):
        return _choose_sizes(call)
    condition, a, b = call.operands()
    return call.emit(aten.where.self, condition, a, b)


def _choose_sizes(call: Call) -> Value:
    condition = call.value(0)
    first, second = as_sizes(call.inputs[1]), as_sizes(call.inputs[2])
    known = isinstance(condition, Constant) and condition.tensor.dim() <= 1
    if not known or first is None or second is None:
        raise refusal(call)
    chosen = condition.tensor.reshape(-1).tolist()  # type: ignore[union-attr]
    count = max(len(chosen), len(first.items), len(second.items))
    chosen = chosen * count if len(chosen) == 1 else chosen
    left, right = spread(call, first, count), spread(call, second, count)
    items = [a if c else b for c, a, b in zip(chosen, left, right, strict=True)]
    scalar = first.scalar and second.scalar and condition.tensor.dim() == 0  # type: ignore[union-attr]
    return sized(call, items, scalar)


_LOGIC: dict[str, Any] = {
    "And": aten.logical_and.default,
    "Or": aten.logical_or.default,
    "Xor": aten.logical_xor.default,
}


@converts(*_LOGIC, since=7)
def convert_logic(call: Call) -> Value:
    return call.emit(_LOGIC[call.operator], call.operand(0), call.operand(1))


@converts("Not")
def convert_not(call: Call) -> Value:
    return call.emit(aten.logical_not.default, call.operand(0))


@converts("IsNaN", since=9)
def convert_is_nan(call: Call) -> Value:
    x = call.operand(0)
    return call.emit(aten.ne.Tensor, x, x)


@converts("IsInf", since=10)
def convert_is_inf(call: Call) -> Value:
    x = call.operand(0)
    low, high = call.flag("detect_negative", True), call.flag("detect_positive", True)
    largest = torch.finfo(call.dtype(x)).max
    above = call.emit(aten.gt.Scalar, x, largest)
    below = call.emit(aten.lt.Scalar, x, -largest)
    if low and high:
        return call.emit(aten.logical_or.default, above, below)
    if low or high:
        return above if high else below
    return call.emit(aten.logical_and.default, above, below)

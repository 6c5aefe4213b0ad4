"""Converters of what reads a whole axis: sums, means, extremes, their positions, running sums."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, prod
from typing import Any

import torch

from ..call import Call
from ..registry import converts
from ..values import Operand, Value
from .elementwise import STORED_ONLY, cast

aten = torch.ops.aten

# The opset from which on a reduction's axes are an input.
_AXES_INPUT = {"ReduceSum": 13}


def _axes(call: Call, x: Operand) -> list[int] | None:
    """Return the axes to reduce; None for none at all."""
    if call.opset >= _AXES_INPUT.get(call.operator, 18):
        axes = call.whole(1) if call.has(1) else []
    else:
        axes = call.integers("axes", [])
    if axes:
        return sorted(call.axes(x, axes))
    return None if call.flag("noop_with_empty_axes") else list(range(call.rank(x)))


def _empty(call: Call, x: Operand, axes: list[int], keep: bool, value: Any) -> Operand | None:
    """Return what a reduction of nothing gives, where an axis has no entries."""
    shape = call.shape(x)
    if not any(shape[axis] == 0 for axis in axes):
        return None
    sizes = [
        1 if axis in axes else call.fixed(x, axis)
        for axis in range(len(shape))
        if keep or axis not in axes
    ]
    return call.emit(aten.full.default, sizes, value, dtype=call.dtype(x))


def _sum(call: Call, x: Operand, axes: list[int], keep: bool) -> Operand:
    if not axes:
        return x
    if call.dtype(x).is_floating_point:
        return call.emit(aten.sum.dim_IntList, x, axes, keep)
    return call.emit(aten.sum.dim_IntList, x, axes, keep, dtype=call.dtype(x))


def _reduced(
    call: Call, reduce: Callable[[Call, Operand, list[int], bool], Operand], entry: Any = None
) -> Value:
    """Apply `entry` to each entry, then reduce the axes that the node names."""
    x = call.operand(0)
    axes, keep = _axes(call, x), call.flag("keepdims", True)
    if axes is None:
        # No axes: each entry is a reduction of itself.
        return reduce(call, entry(x) if entry else x, [], True)
    return reduce(call, entry(x) if entry else x, axes, keep)


@converts("ReduceSum")
def convert_reduce_sum(call: Call) -> Value:
    return _reduced(call, _sum)


@converts("ReduceMean")
def convert_reduce_mean(call: Call) -> Value:
    return _reduced(call, _mean)


def _mean(call: Call, x: Operand, axes: list[int], keep: bool) -> Operand:
    if not axes:
        return x
    dtype = call.dtype(x)
    if dtype.is_floating_point:
        return call.emit(aten.mean.dim, x, axes, keep)
    return cast(call, call.emit(aten.mean.dim, cast(call, x, torch.float64), axes, keep), dtype)


@converts("ReduceMax")
def convert_reduce_max(call: Call) -> Value:
    return _reduced(call, _extreme(aten.amax.default, -inf))


@converts("ReduceMin")
def convert_reduce_min(call: Call) -> Value:
    return _reduced(call, _extreme(aten.amin.default, inf))


def _extreme(target: Any, nothing: float) -> Callable[[Call, Operand, list[int], bool], Operand]:
    def reduce(call: Call, x: Operand, axes: list[int], keep: bool) -> Operand:
        if not axes:
            return x
        dtype = call.dtype(x)
        value: Any = nothing
        if dtype == torch.bool:
            value = nothing > 0
        elif not dtype.is_floating_point:
            value = torch.iinfo(dtype).max if nothing > 0 else torch.iinfo(dtype).min
        if dtype.is_floating_point:
            _refuse_nothing(call, x, axes)
        empty = _empty(call, x, axes, keep, value)
        return empty if empty is not None else call.emit(target, x, axes, keep)

    return reduce


def _refuse_nothing(call: Call, x: Operand, axes: list[int]) -> None:
    """The extreme of no floats is infinite, which a canonical graph doesn't store."""
    if any(call.shape(x)[axis] == 0 for axis in axes):
        raise call.refuse("reduces axes without entries, which gives infinities")


def reduce_product(call: Call) -> Value:
    """ReduceProd of a tensor, one axis after the other."""
    return _reduced(call, _product)


def _product(call: Call, x: Operand, axes: list[int], keep: bool) -> Operand:
    dtype = call.dtype(x)
    options = {} if dtype.is_floating_point else {"dtype": dtype}
    for axis in reversed(axes):
        x = call.emit(aten.prod.dim_int, x, axis, keep, **options)
    return x


@converts("ReduceL1")
def convert_reduce_l1(call: Call) -> Value:
    return _reduced(call, _sum, lambda x: call.emit(aten.abs.default, x))


@converts("ReduceSumSquare")
def convert_reduce_sum_square(call: Call) -> Value:
    return _reduced(call, _sum, lambda x: call.emit(aten.mul.Tensor, x, x))


@converts("ReduceL2")
def convert_reduce_l2(call: Call) -> Value:
    x = call.operand(0)
    total = _reduced(call, _sum, lambda x: call.emit(aten.mul.Tensor, x, x))
    assert isinstance(total, Operand)
    wide = total if call.dtype(x).is_floating_point else cast(call, total, torch.float64)
    return cast(call, call.emit(aten.sqrt.default, wide), call.dtype(x))


@converts("ReduceLogSum")
def convert_reduce_log_sum(call: Call) -> Value:
    return call.emit(aten.log.default, _reduced(call, _sum))


@converts("ReduceLogSumExp")
def convert_reduce_log_sum_exp(call: Call) -> Value:
    return _reduced(call, _log_sum_exp)


def _log_sum_exp(call: Call, x: Operand, axes: list[int], keep: bool) -> Operand:
    if not axes:
        return x
    _refuse_nothing(call, x, axes)
    return call.emit(aten.logsumexp.default, x, axes, keep)


_EXTREMES: dict[str, Any] = {"ArgMax": aten.argmax.default, "ArgMin": aten.argmin.default}


@converts(*_EXTREMES)
def convert_arg_extreme(call: Call) -> Value:
    x = call.operand(0)
    axis, keep = call.axis(x, call.integer("axis", 0)), call.flag("keepdims", True)
    target = _EXTREMES[call.operator]
    if not call.flag("select_last_index"):
        return call.emit(target, x, axis, keep)
    size = call.fixed(x, axis)
    last = call.emit(target, call.emit(aten.flip.default, x, [axis]), axis, keep)
    return call.emit(aten.add.Tensor, call.emit(aten.neg.default, last), size - 1)


_RUNNING: dict[str, Any] = {"CumSum": aten.cumsum.default, "CumProd": aten.cumprod.default}


@converts(*_RUNNING, since=11)
def convert_running(call: Call) -> Value:
    x = call.operand(0)
    axis = call.axis(x, int(call.real(1)))
    size = call.fixed(x, axis)
    backwards = call.flag("reverse")
    if backwards:
        x = call.emit(aten.flip.default, x, [axis])
    whole = not call.dtype(x).is_floating_point
    options = {"dtype": call.dtype(x)} if whole else {}
    if call.flag("exclusive") and size:
        # The entry itself is left out: shift by one, begin with nothing.
        shorter = call.emit(aten.slice.Tensor, x, axis, 0, size - 1, 1)
        amounts = [0, 0] * (call.rank(x) - 1 - axis) + [1, 0]
        neutral = 0 if call.operator == "CumSum" else 1
        x = call.emit(aten.constant_pad_nd.default, shorter, amounts, neutral)
    y = call.emit(_RUNNING[call.operator], x, axis, **options)
    return call.emit(aten.flip.default, y, [axis]) if backwards else y


@converts("TopK", since=1)
def convert_top_k(call: Call) -> list[Value]:
    """A stable sort, then its beginning: equal entries keep their order, as ONNX wants."""
    x = call.operand(0)
    axis = call.axis(x, call.integer("axis", -1))
    count = call.integer("k") if call.opset < 10 else prod(call.whole(1))
    if not 0 <= count <= call.fixed(x, axis):
        raise call.refuse(f"wants the first {count} of {call.fixed(x, axis)}")
    largest = call.flag("largest", True)
    dtype = call.dtype(x)
    x = cast(call, x, torch.int64) if dtype in STORED_ONLY else x
    places = call.emit(aten.argsort.stable, x, stable=True, dim=axis, descending=largest)
    values = cast(call, call.emit(aten.gather.default, x, axis, places), dtype)
    if count == call.fixed(x, axis):
        return [values, places]
    return [call.emit(aten.slice.Tensor, v, axis, 0, count, 1) for v in (values, places)]

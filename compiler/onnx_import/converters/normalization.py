"""Converters of normalizations and softmax."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from ..call import Call
from ..registry import converts
from ..tensors import torch_dtype
from ..values import Operand, Value
from .elementwise import add, cast, multiply
from .shapes import reshape
from .windows import pad_ends

aten = torch.ops.aten


@converts("InstanceNormalization", since=6)
def convert_instance_norm(call: Call) -> Value:
    x = call.operand(0)
    groups = call.fixed(x, 1)
    scale, bias = call.parameter(1), call.parameter(2)
    return call.emit(aten.group_norm.default, x, groups, scale, bias, call.number("epsilon", 1e-5))


@converts("GroupNormalization", since=18)
def convert_group_norm_by_group(call: Call) -> Value:
    """Opset 18 has one scale and bias a group."""
    x = call.operand(0)
    repeat = call.fixed(x, 1) // max(1, call.integer("num_groups"))
    parameters = [
        call.emit(aten.repeat_interleave.self_int, call.parameter(index), repeat)
        for index in (1, 2)
    ]
    return _group_norm(call, x, parameters)


@converts("GroupNormalization", since=21)
def convert_group_norm(call: Call) -> Value:
    return _group_norm(call, call.operand(0), [call.parameter(1), call.parameter(2)])


def _group_norm(call: Call, x: Operand, parameters: list[Operand]) -> Operand:
    groups = call.integer("num_groups")
    if groups < 1 or call.fixed(x, 1) % groups:
        raise call.refuse(f"can't form {groups} groups of {call.fixed(x, 1)} channels")
    return call.emit(aten.group_norm.default, x, groups, *parameters, call.number("epsilon", 1e-5))


@converts("LayerNormalization", since=17)
def convert_layer_norm(call: Call) -> Any:
    x = call.operand(0)
    axis = call.axis(x, call.integer("axis", -1))
    epsilon = call.number("epsilon", 1e-5)
    shape = [call.fixed(x, index) for index in range(axis, call.rank(x))]
    scale = call.parameter(1)
    bias = call.parameter(2) if call.has(2) else None
    if call.wants(1) or call.wants(2):
        return _layer_norm_parts(call, x, axis, scale, bias)
    own = [call.shape(value) == shape for value in (scale, bias) if value is not None]
    if all(own) and call.dtype(scale) == call.dtype(x):
        return call.emit(aten.layer_norm.default, x, shape, scale, bias, epsilon)
    y = call.emit(aten.layer_norm.default, x, shape, None, None, epsilon)
    y = multiply(call, y, scale)
    return y if bias is None else add(call, y, bias)


def _layer_norm_parts(
    call: Call, x: Operand, axis: int, scale: Operand, bias: Operand | None
) -> list[Value]:
    """Layer norm spelled out, with the mean and the inverse deviation that it makes."""
    axes = list(range(axis, call.rank(x)))
    dtype = call.dtype(x)
    stash = torch_dtype(call.integer("stash_type", 1), f"node {call.name!r}")
    wide = cast(call, x, stash)
    mean = call.emit(aten.mean.dim, wide, axes, True)
    centred = call.emit(aten.sub.Tensor, wide, mean)
    variance = call.emit(aten.mean.dim, call.emit(aten.mul.Tensor, centred, centred), axes, True)
    shifted = call.emit(aten.add.Tensor, variance, call.number("epsilon", 1e-5))
    inverse = call.emit(aten.rsqrt.default, shifted)
    y = multiply(call, cast(call, call.emit(aten.mul.Tensor, centred, inverse), dtype), scale)
    return [y if bias is None else add(call, y, bias), mean, inverse]


@converts("RMSNormalization", since=23)
def convert_rms_norm(call: Call) -> Value:
    x = call.operand(0)
    axes = list(range(call.axis(x, call.integer("axis", -1)), call.rank(x)))
    dtype = call.dtype(x)
    wide = cast(call, x, torch_dtype(call.integer("stash_type", 1), f"node {call.name!r}"))
    square = call.emit(aten.mean.dim, call.emit(aten.mul.Tensor, wide, wide), axes, True)
    shifted = call.emit(aten.add.Tensor, square, call.number("epsilon", 1e-5))
    y = call.emit(aten.mul.Tensor, wide, call.emit(aten.rsqrt.default, shifted))
    return multiply(call, cast(call, y, dtype), call.parameter(1))


@converts("MeanVarianceNormalization", since=9)
def convert_mean_variance_norm(call: Call) -> Value:
    x = call.operand(0)
    axes = call.axes(x, call.integers("axes", [0, 2, 3]))
    mean = call.emit(aten.mean.dim, x, axes, True)
    centred = call.emit(aten.sub.Tensor, x, mean)
    variance = call.emit(aten.mean.dim, call.emit(aten.mul.Tensor, centred, centred), axes, True)
    deviation = call.emit(aten.add.Tensor, call.emit(aten.sqrt.default, variance), 1e-9)
    return call.emit(aten.div.Tensor, centred, deviation)


@converts("LpNormalization", since=1)
def convert_lp_norm(call: Call) -> Value:
    x = call.operand(0)
    axis, power = call.axis(x, call.integer("axis", -1)), call.integer("p", 2)
    if power == 1:
        norm = call.emit(aten.sum.dim_IntList, call.emit(aten.abs.default, x), [axis], True)
    elif power == 2:
        square = call.emit(aten.mul.Tensor, x, x)
        norm = call.emit(aten.sqrt.default, call.emit(aten.sum.dim_IntList, square, [axis], True))
    else:
        raise call.refuse(f"has the norm {power}; 1 and 2 are supported")
    # A vector of zeros stays one.
    safe = call.emit(
        aten.add.Tensor, norm, cast(call, call.emit(aten.eq.Scalar, norm, 0.0), call.dtype(x))
    )
    return call.emit(aten.div.Tensor, x, safe)


@converts("LRN")
def convert_lrn(call: Call) -> Value:
    """x / (bias + alpha * the mean of squares over neighbouring channels) ** beta."""
    x, size = call.operand(0), call.integer("size")
    channels = call.fixed(x, 1)
    if not 1 <= size <= 2 * channels + 1:
        raise call.refuse(f"reaches over {size} of {channels} channels")
    area = prod(call.fixed(x, axis) for axis in range(2, call.rank(x)))
    flat = call.emit(
        aten.reshape.default, call.emit(aten.mul.Tensor, x, x), [-1, 1, channels, area]
    )
    padded = pad_ends(call, flat, [(size - 1) // 2, 0], [size // 2, 0], 0.0)
    mean = call.emit(aten.avg_pool2d.default, padded, [size, 1], [1, 1], [0, 0], False, True)
    means = reshape(call, mean, call.dims(x))
    scaled = call.emit(aten.mul.Tensor, means, call.number("alpha", 1e-4))
    base = call.emit(aten.add.Tensor, scaled, call.number("bias", 1.0))
    factor = call.emit(aten.pow.Tensor_Scalar, base, -call.number("beta", 0.75))
    return call.emit(aten.mul.Tensor, x, factor)


_SOFTMAX: dict[str, Any] = {
    "Softmax": aten.softmax.int,
    "LogSoftmax": aten.log_softmax.int,
}


@converts(*_SOFTMAX, since=13)
def convert_softmax(call: Call) -> Value:
    x = call.operand(0)
    return call.emit(_SOFTMAX[call.operator], x, call.axis(x, call.integer("axis", -1)))


@converts(*_SOFTMAX, since=1)
def convert_flat_softmax(call: Call) -> Value:
    """Before opset 13 the axes from `axis` on count as one."""
    x = call.operand(0)
    axis, rank = call.axis(x, call.integer("axis", 1)), call.rank(x)
    target = _SOFTMAX[call.operator]
    if all(call.shape(x)[index] == 1 for index in range(axis + 1, rank)):
        return call.emit(target, x, axis)
    dims = call.dims(x)
    tail = [call.fixed(x, index) for index in range(axis, rank)]
    flat = call.emit(aten.reshape.default, x, [-1, prod(tail)])
    return reshape(call, call.emit(target, flat, 1), dims)


@converts("Hardmax", since=13)
def convert_hardmax(call: Call) -> Value:
    x = call.operand(0)
    return _hardmax(call, x, call.axis(x, call.integer("axis", -1)))


@converts("Hardmax", since=1)
def convert_flat_hardmax(call: Call) -> Value:
    x = call.operand(0)
    axis = call.axis(x, call.integer("axis", 1))
    tail = [call.fixed(x, index) for index in range(axis, call.rank(x))]
    flat = call.emit(aten.reshape.default, x, [-1, prod(tail)])
    return reshape(call, _hardmax(call, flat, 1), call.dims(x))


def _hardmax(call: Call, x: Operand, axis: int) -> Operand:
    """1 at the first largest entry of an axis, 0 elsewhere."""
    size = call.fixed(x, axis)
    first = call.emit(aten.argmax.default, x, axis, True)
    shape = [1] * call.rank(x)
    shape[axis] = size
    places = call.make(torch.arange(size).reshape(shape), "places")
    return cast(call, call.emit(aten.eq.Tensor, first, places), call.dtype(x))

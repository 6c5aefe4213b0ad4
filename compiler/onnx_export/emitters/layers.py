"""Layers with weights: convolutions, linear, batch norm, and the other normalizations."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.ops import arguments

from ..call import Call
from ..registry import emits

_fake_quantize = torch.ops.planish.fake_quantize.default


def _spread(value: Any, count: int) -> list[int]:
    """Spell a size of one entry as one entry an axis."""
    items = [value] if isinstance(value, int) else list(value)
    return [int(item) for item in (items * count if len(items) == 1 else items)]


def _spatial(call: Call) -> dict[str, Any]:
    """Return the attributes that convolutions share."""
    axes = len(call.shape("weight")) - 2
    if len(call.shape("input")) != axes + 2:
        raise call.refused("of one sample without a batch has no ONNX form")
    padding = _spread(call["padding"], axes)
    return {
        "strides": _spread(call["stride"], axes),
        "pads": padding + padding,
        "dilations": _spread(call["dilation"], axes),
        "group": call["groups"],
        "kernel_shape": call.shape("weight")[2:],
    }


@emits("conv2d", "conv3d")
def convolution(call: Call) -> str:
    """Write Conv."""
    bias = call.quantizer.bias(call.node)
    return call.op("Conv", call.value("input"), call.value("weight"), bias, **_spatial(call))


@emits("conv_transpose2d", "conv_transpose3d")
def transposed_convolution(call: Call) -> str:
    """Write ConvTranspose."""
    bias = call.quantizer.bias(call.node)
    axes = len(call.shape("weight")) - 2
    extra = _spread(call["output_padding"], axes)
    operands = (call.value("input"), call.value("weight"), bias)
    return call.op("ConvTranspose", *operands, output_padding=extra, **_spatial(call))


@emits("linear")
def linear(call: Call) -> str:
    """Write Gemm for [n, features], else MatMul with the transposed weight, and Add."""
    bias = call.quantizer.bias(call.node)
    if len(call.shape("input")) == 2:
        return call.op("Gemm", call.value("input"), call.value("weight"), bias, transB=1)
    product = call.op("MatMul", call.value("input"), _transposed(call, call["weight"]))
    return call.op("Add", product, bias) if bias else product


def _transposed(call: Call, weight: fx.Node) -> str:
    """Return a weight [out, in] as [in, out], stored that way."""
    if weight.op == "get_attr":
        return call.writer.stored_transposed(str(weight.target))
    if weight.target is _fake_quantize and arguments(weight)["x"].op == "get_attr":
        return call.quantizer.weight(weight, transposed=True)
    return call.op("Transpose", call.writer.value(weight), perm=[1, 0])


@emits("batch_norm")
def batch_norm(call: Call) -> str:
    """Write BatchNormalization as it evaluates; missing factors are ones, missing terms zeros."""
    if call["running_mean"] is None or call["running_var"] is None:
        raise call.refused("without running statistics has no ONNX form that evaluates alike")
    channels = call.shape("running_mean")
    factor = call.value("weight") or call.tensor("ones", torch.ones(channels))  # type: ignore[arg-type]
    term = call.value("bias") or call.tensor("zeros", torch.zeros(channels))  # type: ignore[arg-type]
    statistics = (call.value("running_mean"), call.value("running_var"))
    operands = (call.value("input"), factor, term, *statistics)
    return call.op("BatchNormalization", *operands, epsilon=float(call["eps"]))


@emits("layer_norm")
def layer_norm(call: Call) -> str:
    """Write LayerNormalization over the last axes."""
    sizes = [int(size) for size in call["normalized_shape"]]
    factor = call.value("weight") or call.tensor("ones", torch.ones(sizes, dtype=call.dtype))
    operands = (call.value("input"), factor, call.value("bias"))
    return call.op("LayerNormalization", *operands, axis=-len(sizes), epsilon=float(call["eps"]))


@emits("group_norm")
def group_norm(call: Call) -> str:
    """Write GroupNormalization (opset 21), before that InstanceNormalization of the groups."""
    sizes, groups = call.shape("input"), int(call["num_groups"])
    channels = int(sizes[1] or 0)
    x, epsilon = call.value("input"), float(call["eps"])
    if call.opset >= 21:
        factor = call.value("weight") or call.tensor("ones", torch.ones(channels))
        term = call.value("bias") or call.tensor("zeros", torch.zeros(channels))
        return call.op("GroupNormalization", x, factor, term, num_groups=groups, epsilon=epsilon)
    if None in sizes[1:]:
        raise call.refused("of an open size has no ONNX form before opset 21")
    grouped = call.op("Reshape", x, call.integers([0, groups, -1]))
    ones, zeros = (
        call.tensor(name, make(groups))
        for name, make in (("ones", torch.ones), ("zeros", torch.zeros))
    )
    normal = call.op("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
    result = call.op("Reshape", normal, call.integers([0, *(int(s or 0) for s in sizes[1:])]))
    along = call.integers([channels] + [1] * (len(sizes) - 2))
    for name, operator_type in (("weight", "Mul"), ("bias", "Add")):
        if call[name] is not None:
            result = call.op(operator_type, result, call.op("Reshape", call.value(name), along))
    return result

"""Operators that stay in float on every level: comparisons, choice, scatter, casts, 3-D pools.

Some rows of this kind have no emitter: argsort, cumprod, col2im, the samplers and others.
They stand behind detectors, and an export that meets one names it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from planish.ir.ops import row

from ..call import Call
from ..registry import emits
from ..writer import element_type

_COMPARISONS = {
    "eq": "Equal",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "lt": "Less",
    "le": "LessOrEqual",
}


def _common(call: Call, *names: str) -> torch.dtype:
    """Return the element type that operands are brought to, as torch promotes them."""
    values = [call[name] for name in names]
    kinds = [v.meta["val"].dtype for v in values if isinstance(v, fx.Node)]
    common = kinds[0]
    for kind in kinds[1:]:
        common = torch.promote_types(common, kind)
    if any(isinstance(v, float) for v in values) and not common.is_floating_point:
        return torch.float32
    return common


@emits(*_COMPARISONS, *(f"{name}_scalar" for name in _COMPARISONS), "ne", "ne_scalar")
def comparison(call: Call) -> str:
    """Write a comparison of two tensors, or of one and a number."""
    name = row(call.node).name.removesuffix("_scalar")
    common = _common(call, "self", "other")
    operands = (call.operand("self", common), call.operand("other", common))
    if name == "ne":
        return call.op("Not", call.op("Equal", *operands))
    return call.op(_COMPARISONS[name], *operands)


_LOGICAL = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor", "logical_not": "Not"}


@emits(*_LOGICAL)
def logical(call: Call) -> str:
    """Write And, Or, Xor or Not on truth values."""
    names = [name for name in ("self", "other") if name in call.arguments]
    operands = [call.operand(name, torch.bool) for name in names]
    return call.op(_LOGICAL[row(call.node).name], *operands)


_BITWISE = {
    "bitwise_and": ("And", "BitwiseAnd"),
    "bitwise_or": ("Or", "BitwiseOr"),
    "bitwise_xor": ("Xor", "BitwiseXor"),
    "bitwise_not": ("Not", "BitwiseNot"),
}


@emits(*_BITWISE)
def bitwise(call: Call) -> str:
    """Write operators on bits (opset 18), on truth values And, Or, Xor and Not."""
    on_truth, on_bits = _BITWISE[row(call.node).name]
    if call.dtype is not torch.bool and call.opset < 18:
        raise call.refused("of whole numbers has no ONNX form before opset 18")
    names = [name for name in ("self", "other") if name in call.arguments]
    operands = [call.operand(name) for name in names]
    return call.op(on_truth if call.dtype is torch.bool else on_bits, *operands)


@emits("where")
def where(call: Call) -> str:
    """Write Where."""
    return call.op("Where", call.value("condition"), call.operand("self"), call.operand("other"))


@emits("maximum", "minimum")
def extreme(call: Call) -> str:
    """Write Max or Min of two tensors."""
    operator_type = "Max" if row(call.node).name == "maximum" else "Min"
    return call.op(operator_type, call.operand("self"), call.operand("other"))


@emits("remainder", "remainder_scalar")
def remainder(call: Call) -> str:
    """Write Mod for whole numbers, x - floor(x / y) * y for others: the sign is the divisor's."""
    x, divisor = call.operand("self"), call.operand("other")
    if not call.dtype.is_floating_point:
        return call.op("Mod", x, divisor)
    times = call.op("Floor", call.op("Div", x, divisor))
    return call.op("Sub", x, call.op("Mul", times, divisor))


@emits("fmod")
def truncated_remainder(call: Call) -> str:
    """Write Mod with the sign of the dividend."""
    return call.op("Mod", call.operand("self"), call.operand("other"), fmod=1)


@emits("div_rounded")
def rounded_quotient(call: Call) -> str:
    """Write Div and a rounding; ONNX's division of whole numbers rounds towards zero by itself."""
    mode, whole = call["rounding_mode"], not call.dtype.is_floating_point
    if mode is None or (whole and mode != "trunc"):
        raise call.refused(f"of {call.dtype} with the rounding {mode} has no ONNX form")
    quotient = call.op("Div", call.operand("self"), call.operand("other"))
    if whole:
        return quotient
    if mode == "floor":
        return call.op("Floor", quotient)
    size = call.op("Floor", call.op("Abs", quotient))
    return call.op("Mul", call.op("Sign", quotient), size)


@emits("power")
def power(call: Call) -> str:
    """Write Pow of two tensors."""
    return call.op("Pow", call.operand("self"), call.operand("exponent"))


@emits("threshold")
def threshold(call: Call) -> str:
    """Write Where(x > threshold, x, value)."""
    x = call.operand("self")
    passes = call.op("Greater", x, call.number(call["threshold"]))
    return call.op("Where", passes, x, call.number(call["value"]))


@emits("cast")
def cast(call: Call) -> str:
    """Write Cast."""
    return call.op("Cast", call.value("self"), to=element_type(call.dtype))


@emits("full")
def full(call: Call) -> str:
    """Write Expand of a number."""
    return call.op("Expand", call.number(call["fill_value"]), call.sizes(list(call["size"])))


@emits("arange")
def arange(call: Call) -> str:
    """Write Range."""
    ends = [call[name] for name in ("start", "end", "step")]
    if any(isinstance(end, fx.Node) for end in ends):
        raise call.refused("to an open size has no ONNX form here")
    return call.op("Range", *(call.number(end) for end in ends))


@emits("triu", "tril")
def triangle(call: Call) -> str:
    """Write Trilu."""
    upper = int(row(call.node).name == "triu")
    return call.op("Trilu", call.value("self"), call.integers(int(call["diagonal"])), upper=upper)


@emits("gather")
def gather(call: Call) -> str:
    """Write GatherElements."""
    return call.op("GatherElements", call.value("self"), call.value("index"), axis=call.axis("dim"))


_SCATTERS = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}


@emits("scatter", "scatter_reduce")
def scatter(call: Call) -> str:
    """Write ScatterElements; maxima and minima since opset 18."""
    options: dict[str, Any] = {"axis": call.axis("dim")}
    if row(call.node).name == "scatter_reduce":
        kind = _SCATTERS.get(call["reduce"])
        if kind is None or not call["include_self"] or (kind in ("max", "min") and call.opset < 18):
            raise call.refused(f"with {call['reduce']!r} has no ONNX form at opset {call.opset}")
        options["reduction"] = kind
    operands = (call.value("self"), call.value("index"), call.operand("src"))
    return call.op("ScatterElements", *operands, **options)


@emits("logsumexp")
def log_sum_exp(call: Call) -> str:
    """Write ReduceLogSumExp."""
    rank = len(call.shape("self"))
    axes = sorted(axis % rank for axis in call["dim"])
    x, keep = call.operand("self"), int(call["keepdim"])
    if call.opset >= 18:
        return call.op("ReduceLogSumExp", x, call.integers(axes), keepdims=keep)
    return call.op("ReduceLogSumExp", x, axes=axes, keepdims=keep)


def _window(call: Call) -> dict[str, Any]:
    if len(call.shape("self")) != 5:
        raise call.refused("of one sample without a batch has no ONNX form")
    kernel = list(np.broadcast_to(call["kernel_size"], 3).tolist())
    padding = np.broadcast_to(call["padding"], 3).tolist()
    return {
        "kernel_shape": kernel,
        "strides": np.broadcast_to(call["stride"] or kernel, 3).tolist(),
        "pads": padding + padding,
        "ceil_mode": int(call["ceil_mode"]),
    }


@emits("max_pool3d")
def max_pool(call: Call) -> str:
    """Write MaxPool."""
    dilations = np.broadcast_to(call["dilation"], 3).tolist()
    return call.op("MaxPool", call.value("self"), dilations=dilations, **_window(call))


@emits("avg_pool3d")
def average_pool(call: Call) -> str:
    """Write AveragePool."""
    if call["divisor_override"] is not None:
        raise call.refused("with a divisor has no ONNX form")
    window = _window(call)
    count = int(any(window["pads"]) and call["count_include_pad"])
    return call.op("AveragePool", call.value("self"), count_include_pad=count, **window)

"""What reads a whole axis: means, sums, softmax, matrix products."""

from __future__ import annotations

import torch

from planish.ir.ops import row

from ..call import Call
from ..registry import emits

# The opset from which each takes its axes as an input, not as an attribute.
_REDUCTIONS = {
    "mean": ("ReduceMean", "dim", 18),
    "sum": ("ReduceSum", "dim", 13),
    "amax": ("ReduceMax", "dim", 18),
    "amin": ("ReduceMin", "dim", 18),
    "prod": ("ReduceProd", "dim", 18),
}


@emits(*_REDUCTIONS)
def reduction(call: Call) -> str:
    """Write a reduction over some axes; no axes stand for all."""
    operator_type, name, since = _REDUCTIONS[row(call.node).name]
    given = call[name]
    rank = len(call.shape("self"))
    named = [given] if isinstance(given, int) else list(given or range(rank))
    axes = sorted(axis % rank for axis in named)
    x, keep = call.operand("self"), int(call["keepdim"])
    if call.opset >= since:
        return call.op(operator_type, x, call.integers(axes), keepdims=keep)
    return call.op(operator_type, x, axes=axes, keepdims=keep)


@emits("argmax", "argmin")
def extremum(call: Call) -> str:
    """Write ArgMax or ArgMin over one axis, or over the flattened tensor."""
    operator_type = "ArgMax" if row(call.node).name == "argmax" else "ArgMin"
    if call["dim"] is None:
        if call["keepdim"]:
            raise call.refused("over all axes that are kept has no ONNX form")
        flat = call.op("Reshape", call.value("self"), call.integers([-1]))
        return call.op(operator_type, flat, axis=0, keepdims=0)
    return call.op(
        operator_type, call.value("self"), axis=call.axis("dim"), keepdims=int(call["keepdim"])
    )


@emits("softmax", "log_softmax")
def softmax(call: Call) -> str:
    """Write Softmax or LogSoftmax over one axis."""
    operator_type = "Softmax" if row(call.node).name == "softmax" else "LogSoftmax"
    return call.op(operator_type, call.operand("self"), axis=call.axis("dim"))


@emits("cumsum")
def cumulative_sum(call: Call) -> str:
    """Write CumSum."""
    return call.op("CumSum", call.operand("self"), call.integers(call.axis("dim")))


@emits("matmul")
def matrix_product(call: Call) -> str:
    """Write MatMul."""
    if call.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        raise call.refused(f"of {call.dtype} has no ONNX form with this meaning")
    return call.op("MatMul", call.value("self"), call.value("other"))

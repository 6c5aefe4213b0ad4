"""Arithmetic on two operands, clamps, dropout."""

from __future__ import annotations

from ..call import Call
from ..registry import emits

_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}


@emits(*_BINARY)
def binary(call: Call) -> str:
    """Write Add, Sub, Mul or Div of tensors that broadcast, or of one and a number."""
    from planish.ir.ops import row

    first, second = call.operand("self"), call.operand("other")
    alpha = call.arguments.get("alpha", 1)
    if alpha != 1:
        second = call.op("Mul", second, call.number(alpha))
    return call.op(_BINARY[row(call.node).name], first, second)


@emits("relu")
def relu(call: Call) -> str:
    """Write Relu."""
    return call.op("Relu", call.value("self"))


@emits("clamp")
def clamp(call: Call) -> str:
    """Write Clip; a bound that is None is a missing input."""
    bounds = [
        "" if call[name] is None else call.number(call[name], call.dtype) for name in ("min", "max")
    ]
    return call.op("Clip", call.operand("self"), *bounds)


@emits("dropout")
def dropout(call: Call) -> str:
    """Write nothing: in evaluation dropout passes everything."""
    return call.value("input")

"""Converters of operators that ONNX Runtime's own optimizers write (domain com.microsoft)."""

from __future__ import annotations

from typing import Any

import torch

from ..call import Call
from ..registry import converts
from ..values import Operand, Value
from .elementwise import add
from .layers import convert_conv

aten = torch.ops.aten
DOMAIN = "com.microsoft"

_ACTIVATIONS: dict[str, Any] = {
    "Relu": aten.relu.default,
    "Sigmoid": aten.sigmoid.default,
    "Tanh": aten.tanh.default,
}


def _biased(call: Call) -> Operand:
    x = call.operand(0)
    return add(call, x, call.parameter(1)) if call.has(1) else x


@converts("Gelu", "BiasGelu", domain=DOMAIN)
def convert_gelu(call: Call) -> Value:
    return call.emit(aten.gelu.default, _biased(call), approximate="none")


@converts("FastGelu", domain=DOMAIN)
def convert_fast_gelu(call: Call) -> Value:
    return call.emit(aten.gelu.default, _biased(call), approximate="tanh")


@converts("QuickGelu", domain=DOMAIN)
def convert_quick_gelu(call: Call) -> Value:
    """x * sigmoid(alpha * x)."""
    x, alpha = call.operand(0), call.number("alpha", 1.702)
    gate = call.emit(aten.sigmoid.default, call.emit(aten.mul.Tensor, x, alpha))
    return call.emit(aten.mul.Tensor, x, gate)


@converts("SkipLayerNormalization", domain=DOMAIN)
def convert_skip_layer_norm(call: Call) -> list[Value | None]:
    """Layer norm of input + skip + bias; the sum itself is the fourth output."""
    total = add(call, call.operand(0), call.operand(1))
    if call.has(4):
        total = add(call, total, call.parameter(4))
    if call.wants(1) or call.wants(2):
        raise call.refuse("gives its mean and variance, as only training needs")
    scale = call.parameter(2)
    bias = call.parameter(3) if call.has(3) else None
    width = [call.fixed(total, call.rank(total) - 1)]
    epsilon = call.number("epsilon", 1e-12)
    y = call.emit(aten.layer_norm.default, total, width, scale, bias, epsilon)
    return [y, None, None, total]


@converts("FusedConv", domain=DOMAIN)
def convert_fused_conv(call: Call) -> Value:
    """A convolution, an addition (the fourth input) and an activation."""
    y: Any = convert_conv(call)
    if call.has(3):
        y = add(call, y, call.operand(3))
    name = call.text("activation", "")
    if not name:
        return y
    if name not in _ACTIVATIONS:
        raise call.refuse(f"has the activation {name!r}, which is not supported")
    return call.emit(_ACTIVATIONS[name], y)

"""obstacles: why an operator that has an integer form can't take it, by its operands and options.

insert-qdq asks before it places quantization, lower-to-integer before it emits: one answer for
both. What depends on scales is found at emission (`NoIntegerForm`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from planish.ir.ops import Quantization, activations, arguments, quantization, row, stored

from ..parameters.weights import has_weight

_fake_quantize = torch.ops.planish.fake_quantize.default


def obstacle(node: fx.Node) -> str | None:
    """Return the reason why a node stays in float, or None."""
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor):
        return None
    name, kind = row(node).name, quantization(node)
    if kind is Quantization.FLOAT:
        return f"{name} has no integer form"
    if value.dtype != torch.float32:
        return f"{name} works on {value.dtype}, not float32"
    values = arguments(node)
    if values.get("dtype") not in (None, torch.float32):
        return f"{name} computes in {values['dtype']}"
    if has_weight(node) or name == "layer_norm":
        for role in ("weight", "bias"):
            if values[role] is not None and not is_stored(values[role]):
                return f"its {role} is computed, not stored"
    check = _CHECKS.get(name)
    return None if check is None or kind is Quantization.TABLE else check(node, values)


def is_stored(value: Any) -> bool:
    """Whether a value is a stored tensor, as it is or fake-quantized."""
    if isinstance(value, fx.Node) and value.target is _fake_quantize:
        value = value.args[0]
    return stored(value) is not None


def _sum(node: fx.Node, values: dict[str, Any]) -> str | None:
    if values["alpha"] != 1:
        return f"{row(node).name} with alpha={values['alpha']} has no integer form"
    return None


_LOWEST = -1e38  # what pads a maximum: negative infinity, or the smallest float


def _matmul(node: fx.Node, values: dict[str, Any]) -> str | None:
    del values
    if any(operand.meta["val"].dim() < 2 for operand in activations(node)):
        return "matmul of a vector has no integer form"
    return None


def _images(node: fx.Node, values: dict[str, Any]) -> str | None:
    del values
    dim = node.meta["val"].dim()
    return None if dim == 4 else f"{row(node).name} of {dim} axes has no integer form"


def pads_maxima(node: fx.Node) -> bool:
    """Whether a node pads, with less than any number, what only a maximum reads.

    Its padding never wins: the smallest integer serves as well, on whatever scale.
    """
    if row(node).name != "pad" or arguments(node)["value"] > _LOWEST:
        return False
    return all(user.op == "call_function" and row(user).name == "max_pool2d" for user in node.users)


def _pad(node: fx.Node, values: dict[str, Any]) -> str | None:
    if pads_maxima(node):
        return None
    if not math.isfinite(values["value"]):
        return f"it pads with {values['value']}, which no scale represents"
    return None


_CHECKS: dict[str, Callable[[fx.Node, dict[str, Any]], str | None]] = {
    "add": _sum,
    "sub": _sum,
    "matmul": _matmul,
    "pad": _pad,
    "conv2d": _images,
    "conv_transpose2d": _images,
    "max_pool2d": _images,
    "avg_pool2d": _images,
    "adaptive_avg_pool2d": _images,
    "resize": _images,
}

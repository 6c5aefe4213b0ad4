"""Emits the layers that hold weights, with a quantized or a real result."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.integer import quantize, requantize_multiplier
from planish.ir.ops import arguments, row

from ..parameters.weights import along_axis, per_output, weight_axis
from .emission import Emission, NoIntegerForm
from .integer_patterns import fake_quantize

_ops = torch.ops.planish
_INT32 = 2**31 - 1


def _parameters(e: Emission) -> tuple[fx.Node, fx.Node | None, fx.Node]:
    """Quantize weight and bias; return the nodes of weight, bias and multiplier."""
    integers, scale, name = _weight(e)
    multiplier = requantize_multiplier(e.x.qparams.scale, scale, e.y_scale)
    bias = _bias(e, e.values["bias"], scale)
    prefix = name.removesuffix("weight")
    return (
        e.tensor(name, integers),
        None if bias is None else e.tensor(f"{prefix}bias", bias),
        e.tensor(f"{prefix}multiplier", multiplier),
    )


def _weight(e: Emission) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Return int8 weights, one scale an output channel, and the stored weight's name.

    A zero point is subtracted from the integers: a weight of uint8 around 128 becomes int8
    around 0, exactly; another zero point will do as long as the differences fit int8.
    """
    node = e.values["weight"]
    if node.target is not fake_quantize:
        raise NoIntegerForm("its weight is not quantized")
    known = arguments(node)
    name = str(known["x"].target)
    weight = e.old.attribute(name).detach()
    scale, zero_point = (
        e.old.attribute(str(known[role].target)).detach() for role in ("scale", "zero_point")
    )
    axis = weight_axis(row(e.node).name)
    quantized_axis = known["axis"]
    if quantized_axis is not None and quantized_axis % weight.dim() != axis:
        raise NoIntegerForm(
            f"its weight is quantized along axis {quantized_axis}, its output channels lie "
            f"along axis {axis}"
        )
    spread, shift = (along_axis(t, axis, weight.dim()) for t in (scale, zero_point))
    integers = quantize(weight, spread, shift, known["lo"], known["hi"]) - shift
    if bool((integers < -128).any()) or bool((integers > 127).any()):
        raise NoIntegerForm("its weight is asymmetric: integers less zero point exceed int8")
    return integers.to(torch.int8), per_output(e.node, scale, weight), name


def _bias(e: Emission, node: fx.Node | None, weight_scale: torch.Tensor) -> torch.Tensor | None:
    """Return int32 `rne(bias / (sx * sw))`."""
    real = e.constant(node)
    if real is None:
        return None
    exact = torch.round(real.double() / (e.x.qparams.scale * weight_scale.double()))
    if bool((exact.abs() > _INT32).any()):
        raise NoIntegerForm("its bias does not fit int32 at the scale of its input and weight")
    return exact.to(torch.int32)


def _finish(e: Emission, name: str, *args: Any) -> fx.Node:
    """Call the requantizing operator, or its sibling that gives real numbers."""
    zero_point = e.x.qparams.zero_point
    if e.output is None:
        return e.call(getattr(_ops, f"{name}_dq").default, *args, zero_point)
    return e.call(getattr(_ops, f"{name}_i8").default, *args, *e.ending(zero_point))


def conv2d(e: Emission) -> fx.Node:
    """conv2d_i8 or conv2d_dq."""
    values = e.values
    vertical, horizontal = values["padding"]
    padding = [vertical, horizontal, vertical, horizontal]
    rest = (values["stride"], padding, values["dilation"], values["groups"])
    return _finish(e, "conv2d", e.x.node, *_parameters(e), *rest)


def linear(e: Emission) -> fx.Node:
    """linear_i8 or linear_dq."""
    return _finish(e, "linear", e.x.node, *_parameters(e))


def conv_transpose2d(e: Emission) -> fx.Node:
    """conv_transpose2d_i8."""
    values = e.values
    rest = (values["stride"], values["padding"], values["output_padding"])
    return e.call(
        _ops.conv_transpose2d_i8.default,
        *(e.x.node, *_parameters(e), *rest, values["dilation"], values["groups"]),
        *e.ending(e.x.qparams.zero_point),
    )


def matmul(e: Emission) -> fx.Node:
    """matmul_i8 or matmul_dq."""
    a, b = e.operands
    multiplier = float(requantize_multiplier(a.qparams.scale, b.qparams.scale, e.y_scale))
    args = (a.node, b.node, multiplier, a.qparams.zero_point, b.qparams.zero_point)
    if e.output is None:
        return e.call(_ops.matmul_dq.default, *args)
    return e.call(_ops.matmul_i8.default, *args, *e.ending())

"""Converters of operators that work entry by entry: arithmetic, functions of one value, clamps."""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import torch
from torch import fx

from ..call import Call
from ..registry import Convert, converts
from ..size_values import any_sizes, arithmetic
from ..values import Constant, Operand, QuantizedConstant, Value

aten = torch.ops.aten


# torch stores these, and computes nothing on them.
STORED_ONLY = (torch.uint16, torch.uint32, torch.uint64)


def widened(convert: Convert) -> Convert:
    """Let a converter compute on unsigned integers of 16 to 64 bits, as int64."""

    @functools.wraps(convert)
    def run(call: Call) -> Any:
        found = next(
            (call.dtype(v) for v in call.inputs if isinstance(v, fx.Node | Constant)), None
        )
        if found not in STORED_ONLY:
            return convert(call)
        for index, value in enumerate(call.inputs):
            if isinstance(value, fx.Node | Constant) and call.dtype(value) == found:
                call.inputs[index] = cast(call, value, torch.int64)
        made = convert(call)
        return cast(call, made, found) if call.dtype(made) == torch.int64 else made

    return run


def number_of(operand: Operand | Any, other: Operand | None, call: Call) -> float | int | None:
    """Return a constant's one value where it broadcasts to the other operand, else None."""
    if not isinstance(operand, Constant) or operand.tensor.numel() != 1:
        return None
    if isinstance(other, Constant) or other is None or isinstance(operand, QuantizedConstant):
        return None
    fits = operand.tensor.dim() <= call.rank(other) and operand.tensor.dtype == call.dtype(other)
    value = operand.tensor.reshape(()).item()
    if not fits or isinstance(value, bool) or not math.isfinite(value):
        return None
    return value


def add(call: Call, a: Operand, b: Operand) -> Operand:
    """a + b."""
    if (value := number_of(b, a, call)) is not None:
        return call.emit(aten.add.Tensor, a, value)
    if (value := number_of(a, b, call)) is not None:
        return call.emit(aten.add.Tensor, b, value)
    return call.emit(aten.add.Tensor, a, b)


def multiply(call: Call, a: Operand, b: Operand) -> Operand:
    """a * b."""
    if (value := number_of(b, a, call)) is not None:
        return call.emit(aten.mul.Tensor, a, value)
    if (value := number_of(a, b, call)) is not None:
        return call.emit(aten.mul.Tensor, b, value)
    return call.emit(aten.mul.Tensor, a, b)


def subtract(call: Call, a: Operand, b: Operand) -> Operand:
    """a - b; c - x is -x + c."""
    if (value := number_of(b, a, call)) is not None:
        return call.emit(aten.sub.Tensor, a, value)
    signed = call.dtype(b).is_signed
    if signed and (value := number_of(a, b, call)) is not None:
        return call.emit(aten.add.Tensor, call.emit(aten.neg.default, b), value)
    return call.emit(aten.sub.Tensor, a, b)


def divide(call: Call, a: Operand, b: Operand) -> Operand:
    """a / b; integers are rounded towards zero."""
    if not call.dtype(a).is_floating_point:
        return call.emit(aten.div.Tensor_mode, a, b, rounding_mode="trunc")
    if (value := number_of(b, a, call)) is not None and value:
        return call.emit(aten.div.Tensor, a, value)
    if (value := number_of(a, b, call)) is not None:
        inverse = call.emit(aten.reciprocal.default, b)
        return inverse if value == 1 else call.emit(aten.mul.Tensor, inverse, value)
    return call.emit(aten.div.Tensor, a, b)


@converts("Add", since=7)
@widened
def convert_add(call: Call) -> Value:
    if any_sizes(call):
        return arithmetic(call, operator.add)
    return add(call, call.operand(0), call.operand(1))


@converts("Sub", since=7)
@widened
def convert_sub(call: Call) -> Value:
    if any_sizes(call):
        return arithmetic(call, operator.sub)
    return subtract(call, call.operand(0), call.operand(1))


@converts("Mul", since=7)
@widened
def convert_mul(call: Call) -> Value:
    if any_sizes(call):
        return arithmetic(call, operator.mul)
    return multiply(call, call.operand(0), call.operand(1))


@converts("Div", since=7)
@widened
def convert_div(call: Call) -> Value:
    if any_sizes(call):
        # Sizes are never negative, so rounding down is rounding towards zero.
        return arithmetic(call, operator.floordiv)
    return divide(call, call.operand(0), call.operand(1))


@converts("Pow", since=7)
@widened
def convert_pow(call: Call) -> Value:
    base, exponent = call.operand(0), call.operand(1)
    dtype = call.dtype(base)
    if isinstance(exponent, Constant) and exponent.tensor.numel() == 1:
        value = exponent.tensor.reshape(()).item()
        if exponent.tensor.dim() <= call.rank(base) and dtype.is_floating_point:
            return call.emit(aten.pow.Tensor_Scalar, base, float(value))
    if call.dtype(exponent).is_floating_point and not dtype.is_floating_point:
        power = call.emit(aten.pow.Tensor_Tensor, cast(call, base, torch.float64), exponent)
    else:
        power = call.emit(aten.pow.Tensor_Tensor, base, exponent)
    return cast(call, power, dtype)


@converts("Mod", since=10)
@widened
def convert_mod(call: Call) -> Value:
    target = aten.fmod.Tensor if call.flag("fmod") else aten.remainder.Tensor
    return call.emit(target, call.operand(0), call.operand(1))


def cast(call: Call, x: Operand, dtype: torch.dtype) -> Operand:
    """Return an operand in another element type."""
    return x if call.dtype(x) == dtype else call.emit(aten.to.dtype, x, dtype)


def _folded(call: Call, target: Any) -> Operand:
    first, *rest = call.operands()
    for other in rest:
        first = call.emit(target, first, other)
    return first


@converts("Sum", since=6)
@widened
def convert_sum(call: Call) -> Value:
    first, *rest = call.operands()
    for other in rest:
        first = add(call, first, other)
    return first


@converts("Mean", since=6)
def convert_mean(call: Call) -> Value:
    return call.emit(aten.div.Tensor, convert_sum(call), float(len(call.inputs)))


@converts("Max", since=6)
@widened
def convert_max(call: Call) -> Value:
    return _folded(call, aten.maximum.default)


@converts("Min", since=6)
@widened
def convert_min(call: Call) -> Value:
    return _folded(call, aten.minimum.default)


_UNARY: dict[str, Any] = {
    "Abs": aten.abs.default,
    "Acos": aten.acos.default,
    "Acosh": aten.acosh.default,
    "Asin": aten.asin.default,
    "Asinh": aten.asinh.default,
    "Atan": aten.atan.default,
    "Atanh": aten.atanh.default,
    "Ceil": aten.ceil.default,
    "Cos": aten.cos.default,
    "Cosh": aten.cosh.default,
    "Erf": aten.erf.default,
    "Exp": aten.exp.default,
    "Floor": aten.floor.default,
    "HardSwish": aten.hardswish.default,
    "Log": aten.log.default,
    "Mish": aten.mish.default,
    "Neg": aten.neg.default,
    "Reciprocal": aten.reciprocal.default,
    "Relu": aten.relu.default,
    "Round": aten.round.default,
    "Sigmoid": aten.sigmoid.default,
    "Sign": aten.sign.default,
    "Sin": aten.sin.default,
    "Sinh": aten.sinh.default,
    "Sqrt": aten.sqrt.default,
    "Tan": aten.tan.default,
    "Tanh": aten.tanh.default,
}


@converts(*_UNARY, since=6)
def convert_unary(call: Call) -> Value:
    return call.emit(_UNARY[call.operator], call.operand(0))


@converts("Softplus")
def convert_softplus(call: Call) -> Value:
    return call.emit(aten.softplus.default, call.operand(0), 1, 20)


@converts("Softsign")
def convert_softsign(call: Call) -> Value:
    x = call.operand(0)
    return divide(call, x, call.emit(aten.add.Tensor, call.emit(aten.abs.default, x), 1.0))


@converts("Elu", since=6)
def convert_elu(call: Call) -> Value:
    return call.emit(aten.elu.default, call.operand(0), call.number("alpha", 1.0))


@converts("Celu", since=12)
def convert_celu(call: Call) -> Value:
    return call.emit(aten.celu.default, call.operand(0), call.number("alpha", 1.0))


@converts("Selu", since=6)
def convert_selu(call: Call) -> Value:
    x = call.operand(0)
    alpha = call.number("alpha", 1.67326319217681884765625)
    gamma = call.number("gamma", 1.05070102214813232421875)
    if abs(alpha - 1.6732632421) < 1e-6 and abs(gamma - 1.0507010) < 1e-6:
        return call.emit(aten.selu.default, x)
    return call.emit(aten.elu.default, x, alpha, gamma)


@converts("LeakyRelu", since=6)
def convert_leaky_relu(call: Call) -> Value:
    return call.emit(aten.leaky_relu.default, call.operand(0), call.number("alpha", 0.01))


@converts("ThresholdedRelu", since=10)
def convert_thresholded_relu(call: Call) -> Value:
    x = call.operand(0)
    return call.emit(aten.threshold.default, x, call.number("alpha", 1.0), 0.0)


@converts("HardSigmoid", since=6)
def convert_hard_sigmoid(call: Call) -> Value:
    x = call.operand(0)
    alpha, beta = call.number("alpha", 0.2), call.number("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return call.emit(aten.hardsigmoid.default, x)
    scaled = call.emit(aten.add.Tensor, call.emit(aten.mul.Tensor, x, alpha), beta)
    return call.emit(aten.clamp.default, scaled, 0.0, 1.0)


@converts("Gelu", since=20)
def convert_gelu(call: Call) -> Value:
    kind = call.text("approximate", "none")
    if kind not in ("none", "tanh"):
        raise call.refuse(f"has the unknown approximation {kind!r}")
    return call.emit(aten.gelu.default, call.operand(0), approximate=kind)


@converts("Swish", since=24)
def convert_swish(call: Call) -> Value:
    x, alpha = call.operand(0), call.number("alpha", 1.0)
    if alpha == 1.0:
        return call.emit(aten.silu.default, x)
    scaled = call.emit(aten.sigmoid.default, call.emit(aten.mul.Tensor, x, alpha))
    return call.emit(aten.mul.Tensor, x, scaled)


@converts("PRelu", since=7)
def convert_prelu(call: Call) -> Value:
    """max(x, 0) + slope * min(x, 0); one slope for all is a leaky ReLU."""
    x = call.operand(0)
    slope = call.parameter(1)
    if (value := number_of(slope, x, call)) is not None:
        return call.emit(aten.leaky_relu.default, x, value)
    if not call.dtype(x).is_floating_point:
        product = call.emit(aten.mul.Tensor, x, slope)
        return call.emit(aten.where.self, call.emit(aten.lt.Scalar, x, 0), product, x)
    below = call.emit(aten.clamp.default, x, None, 0.0)
    scaled = call.emit(aten.mul.Tensor, below, slope)
    return call.emit(aten.add.Tensor, call.emit(aten.relu.default, x), scaled)


@converts("Shrink", since=9)
def convert_shrink(call: Call) -> Value:
    x = call.operand(0)
    bias, bound = call.number("bias", 0.0), call.number("lambd", 0.5)
    dtype = call.dtype(x)
    wide = x if dtype.is_floating_point else cast(call, x, torch.float32)
    zero = call.emit(aten.mul.Tensor, wide, 0.0)
    high = call.emit(
        aten.where.self,
        call.emit(aten.gt.Scalar, wide, bound),
        call.emit(aten.sub.Tensor, wide, bias),
        zero,
    )
    low = call.emit(
        aten.where.self,
        call.emit(aten.lt.Scalar, wide, -bound),
        call.emit(aten.add.Tensor, wide, bias),
        high,
    )
    return cast(call, low, dtype)


@converts("Clip", since=6)
def convert_clip_by_attributes(call: Call) -> Value:
    lowest, highest = (torch.finfo(torch.float32).min, torch.finfo(torch.float32).max)
    low, high = call.number("min", lowest), call.number("max", highest)
    return _clamp(
        call, call.operand(0), None if low == lowest else low, None if high == highest else high
    )


@converts("Clip", since=11)
@widened
def convert_clip(call: Call) -> Value:
    x = call.operand(0)
    known = all(call.known(index) for index in (1, 2) if call.has(index))
    if known:
        bounds = [call.real(index) if call.has(index) else None for index in (1, 2)]
        return _clamp(call, x, *bounds)
    for index, target in ((1, aten.maximum.default), (2, aten.minimum.default)):
        if call.has(index):
            x = call.emit(target, x, call.operand(index))
    return x


def _clamp(call: Call, x: Operand, low: Any, high: Any) -> Operand:
    low = None if low == -math.inf else low
    high = None if high == math.inf else high
    if low is None and high is None:
        return x
    if low is not None and high is not None and low > high:
        return call.emit(
            aten.clamp.default, call.emit(aten.clamp.default, x, low, None), high, high
        )
    return call.emit(aten.clamp.default, x, low, high)


@converts("BitShift", since=11)
@widened
def convert_bit_shift(call: Call) -> Value:
    left = call.text("direction") == "LEFT"
    target = aten.bitwise_left_shift.Tensor if left else aten.bitwise_right_shift.Tensor
    return call.emit(target, call.operand(0), call.operand(1))


_BITS: dict[str, Any] = {
    "BitwiseAnd": aten.bitwise_and.Tensor,
    "BitwiseOr": aten.bitwise_or.Tensor,
    "BitwiseXor": aten.bitwise_xor.Tensor,
}


@converts(*_BITS, since=18)
@widened
def convert_bits(call: Call) -> Value:
    return call.emit(_BITS[call.operator], call.operand(0), call.operand(1))


@converts("BitwiseNot", since=18)
@widened
def convert_bitwise_not(call: Call) -> Value:
    return call.emit(aten.bitwise_not.default, call.operand(0))

"""Converters of QuantizeLinear, DequantizeLinear, and arithmetic on raw integers."""

from __future__ import annotations

from typing import Any

import torch

from ..call import Call
from ..grids import quantized, raw, read_grid, real
from ..registry import converts
from ..values import Constant, Operand, Quantized, Value
from .layers import convert_conv

aten = torch.ops.aten
MICROSOFT = "com.microsoft"
_INTEGERS = {
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
}


def _check_blocks(call: Call) -> None:
    if call.integer("block_size", 0):
        raise call.refuse("has scales in blocks; one a tensor or a channel is supported")


@converts("QuantizeLinear", since=10)
@converts("QuantizeLinear", domain=MICROSOFT)
def convert_quantize(call: Call) -> Value:
    """To the real values on the grid: what reads them may compute on integers."""
    _check_blocks(call)
    x = call.operand(0)
    rank = call.rank(x)
    wanted = call.integer("output_dtype", 0)
    if wanted and wanted not in _INTEGERS:
        raise call.refuse(
            f"quantizes to the element type {wanted}; 8- and 16-bit integers are supported"
        )
    dtype = _INTEGERS.get(wanted, torch.uint8)
    grid = read_grid(call, 1, 2, rank=rank, axis=call.integer("axis", 1), dtype=dtype)
    if not isinstance(x, Constant) and call.dtype(x) != torch.float32:
        x = call.emit(aten.to.dtype, x, torch.float32)
    return quantized(call, x, grid)


@converts("DequantizeLinear", since=10)
@converts("DequantizeLinear", domain=MICROSOFT)
def convert_dequantize(call: Call) -> Value:
    """Back to real values; a stored weight stays quantized."""
    _check_blocks(call)
    found = call.value(0)
    if isinstance(found, Quantized):
        rank, dtype = call.rank(found.node), found.dtype
    else:
        x = call.operand(0)
        rank, dtype = call.rank(x), call.dtype(x)
    if dtype.is_floating_point:
        raise call.refuse(f"reads {dtype}; integers are supported")
    return real(
        call, 0, read_grid(call, 1, 2, rank=rank, axis=call.integer("axis", 1), dtype=dtype)
    )


@converts("DynamicQuantizeLinear", since=11)
def convert_dynamic_quantize(call: Call) -> list[Value]:
    """Scale and zero point from the values themselves, in float: x, 8 bits, and both."""
    x = call.operand(0)
    every = list(range(call.rank(x)))
    low = call.emit(aten.clamp.default, call.emit(aten.amin.default, x, every), None, 0.0)
    high = call.emit(aten.clamp.default, call.emit(aten.amax.default, x, every), 0.0, None)
    scale = call.emit(aten.div.Tensor, call.emit(aten.sub.Tensor, high, low), 255.0)
    start = call.emit(aten.neg.default, call.emit(aten.div.Tensor, low, scale))
    shift = call.emit(aten.round.default, call.emit(aten.clamp.default, start, 0.0, 255.0))
    steps = call.emit(aten.round.default, call.emit(aten.div.Tensor, x, scale))
    clamped = call.emit(aten.clamp.default, call.emit(aten.add.Tensor, steps, shift), 0.0, 255.0)
    return [
        call.emit(aten.to.dtype, clamped, torch.uint8),
        scale,
        call.emit(aten.to.dtype, shift, torch.uint8),
    ]


def _shifted(call: Call, index: int, zero_point: int, axis: int | None = None) -> Operand:
    """Return raw integers less their zero point, in float64, which holds all sums exactly."""
    values = call.emit(aten.to.dtype, raw(call, index), torch.float64)
    if not call.has(zero_point):
        return values
    shift = call.emit(aten.to.dtype, raw(call, zero_point), torch.float64)
    if axis is not None and call.rank(shift) == 1:
        sizes = [1] * call.rank(values)
        sizes[axis] = -1
        shift = call.emit(aten.reshape.default, shift, sizes)
    return call.emit(aten.sub.Tensor, values, shift)


@converts("MatMulInteger", since=10)
def convert_matmul_integer(call: Call) -> Value:
    """The exact product of integers less their zero points, a row's and a column's."""
    first = _shifted(call, 0, 2, -2 if call.rank(raw(call, 0)) > 1 else None)
    second = _shifted(call, 1, 3, -1)
    return call.emit(aten.to.dtype, call.emit(aten.matmul.default, first, second), torch.int32)


@converts("ConvInteger", since=10)
def convert_conv_integer(call: Call) -> Value:
    """The exact convolution of integers less their zero points."""
    inputs = [_shifted(call, 0, 2), _shifted(call, 1, 3, 0)]
    return call.emit(aten.to.dtype, convert_conv(sub_call(call, "Conv", inputs)), torch.int32)


def sub_call(call: Call, operator: str, inputs: list[Any], **attributes: Any) -> Call:
    """Return a call of a float operator that a quantized one stands for."""
    return Call(
        operator=operator,
        name=call.name,
        opset=17,
        inputs=inputs,
        output_names=call.output_names[:1],
        attributes={**call.attributes, **attributes},
        emitter=call.emitter,
        read_tensor=call.read_tensor,
    )

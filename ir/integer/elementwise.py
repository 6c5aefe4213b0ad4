"""quantize, dequantize, add_i8, requantize_i8, clamp_i8, table_i8."""

from __future__ import annotations

import torch

from . import arithmetic
from .define import define


def quantize(
    x: torch.Tensor, scale: float, zero_point: int, lo: int, hi: int, dtype: torch.dtype
) -> torch.Tensor:
    """`clamp(rne(x / scale) + zero_point, lo, hi)`: float32 of any shape to uint8 or int8."""
    return arithmetic.quantize(x, scale, zero_point, lo, hi).to(torch.int32).to(dtype)


def dequantize(q: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    """`(q - zero_point) * scale` in float32."""
    return arithmetic.dequantize(q, scale, zero_point)


def add_i8(
    a: torch.Tensor,
    b: torch.Tensor,
    a_zero_point: int,
    b_zero_point: int,
    a_multiplier: int,
    b_multiplier: int,
    shift: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """`acc = (a - za) * Ma + (b - zb) * Mb`, requantized by 2**-shift.

    The multipliers are at most 32767 in magnitude, so |acc| < 2**24 and its conversion to float32
    is exact: the result is `rne(acc / 2**shift)` on every machine. a and b broadcast as in torch.
    """
    left = (a.to(torch.int32) - a_zero_point) * a_multiplier
    right = (b.to(torch.int32) - b_zero_point) * b_multiplier
    return arithmetic.requantize(left + right, 2.0**-shift, y_zero_point, lo, hi, dtype)


def requantize_i8(
    x: torch.Tensor,
    multiplier: float,
    x_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Move a tensor to another scale: requantize `x - x_zero_point` by `multiplier`."""
    centered = x.to(torch.int32) - x_zero_point
    return arithmetic.requantize(centered, multiplier, y_zero_point, lo, hi, dtype)


def clamp_i8(x: torch.Tensor, lo: int, hi: int) -> torch.Tensor:
    """`clamp(x, lo, hi)` in the quantized domain."""
    return torch.clamp(x, lo, hi)


def table_i8(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Look each value up in a table of 256: index x for uint8, x + 128 for int8."""
    offset = 128 if x.dtype == torch.int8 else 0
    return table[x.to(torch.int64) + offset]


define(
    "quantize(Tensor x, float scale, int zero_point, int lo, int hi, ScalarType dtype) -> Tensor",
    quantize,
    lambda x, scale, zero_point, lo, hi, dtype: x.new_empty(x.shape, dtype=dtype),
)
define(
    "dequantize(Tensor q, float scale, int zero_point) -> Tensor",
    dequantize,
    lambda q, scale, zero_point: q.new_empty(q.shape, dtype=torch.float32),
)
define(
    "add_i8(Tensor a, Tensor b, int a_zero_point, int b_zero_point, int a_multiplier, "
    "int b_multiplier, int shift, int y_zero_point, int lo, int hi, ScalarType dtype) -> Tensor",
    add_i8,
    lambda a, b, *rest: a.new_empty(torch.broadcast_shapes(a.shape, b.shape), dtype=rest[-1]),
)
define(
    "requantize_i8(Tensor x, float multiplier, int x_zero_point, int y_zero_point, int lo, "
    "int hi, ScalarType dtype) -> Tensor",
    requantize_i8,
    lambda x, *rest: x.new_empty(x.shape, dtype=rest[-1]),
)
define(
    "clamp_i8(Tensor x, int lo, int hi) -> Tensor",
    clamp_i8,
    lambda x, lo, hi: x.new_empty(x.shape),
)
define(
    "table_i8(Tensor x, Tensor table) -> Tensor",
    table_i8,
    lambda x, table: x.new_empty(x.shape, dtype=table.dtype),
)

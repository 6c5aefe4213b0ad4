"""softmax_i8, layer_norm_i8, mean_i8: operators that read a whole axis."""

from __future__ import annotations

import torch

from .arithmetic import requantize
from .define import define

# Fraction bits of layer_norm_i8's fixed-point result, before its last rounding.
LAYER_NORM_BITS = 8
# Longest axis that layer_norm_i8 takes: count * (x - zx) - sum stays below 2**24.
LAYER_NORM_LIMIT = 2**15
# Largest magnitude of the scaled deviation; beyond it every result is clamped anyway.
_DEVIATION_LIMIT = float(2**22)


def softmax_i8(
    x: torch.Tensor,
    table: torch.Tensor,
    dim: int,
    multiplier: float,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Softmax by table: `e = table[max - x]`, `y = e * (multiplier / sum(e))`.

    `r = multiplier / float32(sum(e))` is one IEEE division for each row, `float32(e) * r` one
    multiplication, then one rounding and the zero point. The scale of x stands in the table.

    Args:
        x: uint8 or int8, any shape.
        table: int32 [256], `table[d] = rne(exp(-d * sx) * 2**k)`, k chosen such that no sum
            reaches 2**31 and no entry exceeds 2**23.
        dim: The axis that sums to one.
        multiplier: `1 / sy`.
        y_zero_point: Of the output.
        lo: Smallest output, in the quantized domain.
        hi: Largest output.
        dtype: torch.uint8 or torch.int8.
    """
    wide = x.to(torch.int64)
    exponentials = table[wide.amax(dim, keepdim=True) - wide]
    total = exponentials.sum(dim, keepdim=True, dtype=torch.int64).to(torch.int32)
    factor = torch.as_tensor(multiplier, dtype=torch.float32, device=x.device)
    ratio = factor / total.to(torch.float32)
    return requantize(exponentials, ratio, y_zero_point, lo, hi, dtype)


def layer_norm_i8(
    x: torch.Tensor,
    gain: torch.Tensor,
    offset: torch.Tensor,
    axes: int,
    epsilon: int,
    x_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Layer normalization over the last `axes` axes, D values a row.

    With `c = x - zx`, `S = sum(c)`, `Q = sum(c * c)`, all integers:
    `V = D * Q - S * S + epsilon` (int64) is D**2 times the variance in steps of x, and
    `deviation = D * c - S` D times the distance from the mean, below 2**24. Then
    `r = 1 / sqrt(float32(V))`: an IEEE square root and division for each row (0 where V is 0);
    `t = rne(clamp(float32(deviation) * r * gain, -2**22, 2**22))`, multiplied in this order;
    `y = clamp(rne((t + offset) * 2**-8) + zy, lo, hi)`, exact.

    Args:
        x: uint8 or int8 [..., *shape].
        gain: float32 [*shape]: weight / sy * 2**8.
        offset: int32 [*shape]: rne(bias / sy * 2**8), at most 2**22 in magnitude.
        axes: How many axes are normalized.
        epsilon: int64: rne(eps * D**2 / sx**2).
        x_zero_point: Of the input.
        y_zero_point: Of the output.
        lo: Smallest output, in the quantized domain.
        hi: Largest output.
        dtype: torch.uint8 or torch.int8.
    """
    dims = tuple(range(-axes, 0))
    centered = x.to(torch.int64) - x_zero_point
    count = gain.numel()
    total = centered.sum(dims, keepdim=True)
    squares = (centered * centered).sum(dims, keepdim=True)
    variance = count * squares - total * total + epsilon
    deviation = (count * centered - total).to(torch.float32)
    # torch's float32 root (MKL) is off in its last bit now and then; float64's, rounded, never is.
    root = torch.sqrt(variance.to(torch.float32).to(torch.float64)).to(torch.float32)
    inverse = torch.where(root > 0, 1.0 / root, 0.0)
    scaled = torch.clamp(deviation * inverse * gain, -_DEVIATION_LIMIT, _DEVIATION_LIMIT)
    sums = torch.round(scaled).to(torch.int32) + offset
    return requantize(sums, 2.0**-LAYER_NORM_BITS, y_zero_point, lo, hi, dtype)


def mean_i8(
    x: torch.Tensor,
    dim: list[int],
    keepdim: bool,
    multiplier: float,
    x_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """`acc = sum of (x - zx)` over the axes `dim`; then requantize.

    The multiplier is `sx / (sy * count)` for a mean, `sx / sy` for a sum. At most 2**23 values.
    """
    centered = x.to(torch.int32) - x_zero_point
    total = centered.sum(dim, keepdim=keepdim, dtype=torch.int32)
    return requantize(total, multiplier, y_zero_point, lo, hi, dtype)


define(
    "softmax_i8(Tensor x, Tensor table, int dim, float multiplier, int y_zero_point, int lo, "
    "int hi, ScalarType dtype) -> Tensor",
    softmax_i8,
    lambda x, *rest: x.new_empty(x.shape, dtype=rest[-1]),
)
define(
    "layer_norm_i8(Tensor x, Tensor gain, Tensor offset, int axes, int epsilon, int x_zero_point, "
    "int y_zero_point, int lo, int hi, ScalarType dtype) -> Tensor",
    layer_norm_i8,
    lambda x, *rest: x.new_empty(x.shape, dtype=rest[-1]),
)
define(
    "mean_i8(Tensor x, int[] dim, bool keepdim, float multiplier, int x_zero_point, "
    "int y_zero_point, int lo, int hi, ScalarType dtype) -> Tensor",
    mean_i8,
    lambda x, dim, keepdim, *rest: x.to(torch.float32).mean(dim, keepdim).to(rest[-1]),
)

"""conv2d_i8 and linear_i8: exact sums, then one requantization."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .arithmetic import requantize, wrap_int32
from .define import define


def add_bias(accumulator: torch.Tensor, bias: torch.Tensor | None, dim: int) -> torch.Tensor:
    """Add an int32 bias along an axis of an accumulator; the sum wraps."""
    if bias is None:
        return accumulator
    shape = [1] * accumulator.dim()
    shape[dim] = -1
    return accumulator + bias.view(shape)  # int32 + int32 wraps


def conv2d_i8(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    multiplier: torch.Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    x_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """`acc = sum((x - zx) * w) + bias`; padding adds zx, that is nothing; then requantize.

    Args:
        x: uint8 or int8 [n, in, h, w].
        weight: int8 [out, in/groups, kh, kw], symmetric.
        bias: int32 [out] or None.
        multiplier: float32 [out], `sx * sw[c] / sy`.
        stride: [vertical, horizontal].
        padding: [top, left, bottom, right].
        dilation: [vertical, horizontal].
        groups: As in torch.
        x_zero_point: Of the input.
        y_zero_point: Of the output.
        lo: Smallest output, in the quantized domain.
        hi: Largest output.
        dtype: torch.uint8 or torch.int8.
    """
    accumulator = convolution_sum(x, weight, bias, stride, padding, dilation, groups, x_zero_point)
    return requantize(accumulator, multiplier.view(1, -1, 1, 1), y_zero_point, lo, hi, dtype)


def convolution_sum(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    x_zero_point: int,
) -> torch.Tensor:
    """Return conv2d_i8's int32 accumulator [n, out, oh, ow]."""
    # float64 holds every partial sum exactly: |x - zx| * |w| < 2**16 and fewer than 2**37 terms.
    centered = x.to(torch.float64) - x_zero_point
    top, left, bottom, right = padding
    if top == bottom and left == right:
        exact = F.conv2d(
            centered, weight.to(torch.float64), None, stride, [top, left], dilation, groups
        )
    else:
        padded = F.pad(centered, [left, right, top, bottom])
        exact = F.conv2d(padded, weight.to(torch.float64), None, stride, 0, dilation, groups)
    # A library may transform the convolution: sums are integers up to an error far below 1/2.
    return add_bias(wrap_int32(torch.round(exact)), bias, 1)


def convolution_shape(
    x: torch.Tensor,
    weight: torch.Tensor,
    multiplier: torch.Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> tuple[int, ...]:
    """Check the operands of a convolution and return the shape of its result."""
    out, per_group, *kernel = weight.shape
    torch._check(x.shape[1] == per_group * groups, lambda: "channels don't match the weight")
    torch._check(out % groups == 0, lambda: "output channels are not a multiple of groups")
    torch._check(multiplier.shape == (out,), lambda: "one multiplier an output channel")
    sizes = [
        (x.shape[2 + i] + padding[i] + padding[2 + i] - dilation[i] * (kernel[i] - 1) - 1)
        // stride[i]
        + 1
        for i in range(2)
    ]
    return (x.shape[0], out, *sizes)


def _conv2d_shape(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    multiplier: torch.Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    x_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    sizes = convolution_shape(x, weight, multiplier, stride, padding, dilation, groups)
    return x.new_empty(sizes, dtype=dtype)


def linear_i8(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    multiplier: torch.Tensor,
    x_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """`acc = sum((x - zx) * w) + bias` over the last axis; then requantize.

    Args:
        x: uint8 or int8 [..., in].
        weight: int8 [out, in], symmetric.
        bias: int32 [out] or None.
        multiplier: float32 [out].
        x_zero_point: Of the input.
        y_zero_point: Of the output.
        lo: Smallest output.
        hi: Largest output.
        dtype: torch.uint8 or torch.int8.
    """
    accumulator = linear_sum(x, weight, bias, x_zero_point)
    return requantize(accumulator, multiplier, y_zero_point, lo, hi, dtype)


def linear_sum(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, x_zero_point: int
) -> torch.Tensor:
    """Return linear_i8's int32 accumulator [..., out]."""
    exact = F.linear(x.to(torch.float64) - x_zero_point, weight.to(torch.float64))
    return add_bias(wrap_int32(torch.round(exact)), bias, -1)


def linear_shape(
    x: torch.Tensor, weight: torch.Tensor, multiplier: torch.Tensor
) -> tuple[int, ...]:
    """Check the operands of a linear layer and return the shape of its result."""
    torch._check(x.shape[-1] == weight.shape[1], lambda: "features don't match the weight")
    torch._check(multiplier.shape == (weight.shape[0],), lambda: "one multiplier a feature")
    return (*x.shape[:-1], weight.shape[0])


def _linear_shape(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    multiplier: torch.Tensor,
    x_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    return x.new_empty(linear_shape(x, weight, multiplier), dtype=dtype)


define(
    "conv2d_i8(Tensor x, Tensor weight, Tensor? bias, Tensor multiplier, int[2] stride, "
    "int[4] padding, int[2] dilation, int groups, int x_zero_point, int y_zero_point, "
    "int lo, int hi, ScalarType dtype) -> Tensor",
    conv2d_i8,
    _conv2d_shape,
)
define(
    "linear_i8(Tensor x, Tensor weight, Tensor? bias, Tensor multiplier, int x_zero_point, "
    "int y_zero_point, int lo, int hi, ScalarType dtype) -> Tensor",
    linear_i8,
    _linear_shape,
)

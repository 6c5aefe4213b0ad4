"""conv_transpose2d_i8, resize_i8, pad_i8: operators that make images larger."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .arithmetic import requantize, wrap_int32
from .define import define
from .layers import add_bias

# Fraction bits of one axis's interpolation weights in resize_i8.
RESIZE_BITS = 10


def conv_transpose2d_i8(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    multiplier: torch.Tensor,
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
    dilation: list[int],
    groups: int,
    x_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Transposed convolution: every `(x - zx)` spreads over a window; exact sums, then requantize.

    Args:
        x: uint8 or int8 [n, in, h, w].
        weight: int8 [in, out/groups, kh, kw], symmetric.
        bias: int32 [out] or None.
        multiplier: float32 [out], `sx * sw[c] / sy`.
        stride: [vertical, horizontal].
        padding: [vertical, horizontal], as torch's conv_transpose2d has it.
        output_padding: [vertical, horizontal].
        dilation: [vertical, horizontal].
        groups: As in torch.
        x_zero_point: Of the input.
        y_zero_point: Of the output.
        lo: Smallest output, in the quantized domain.
        hi: Largest output.
        dtype: torch.uint8 or torch.int8.
    """
    exact = F.conv_transpose2d(
        x.to(torch.float64) - x_zero_point,
        weight.to(torch.float64),
        None,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )
    accumulator = add_bias(wrap_int32(torch.round(exact)), bias, 1)
    return requantize(accumulator, multiplier.view(1, -1, 1, 1), y_zero_point, lo, hi, dtype)


def _conv_transpose2d_shape(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    multiplier: torch.Tensor,
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
    dilation: list[int],
    groups: int,
    x_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    into, per_group, *kernel = weight.shape
    torch._check(x.shape[1] == into, lambda: "channels don't match the weight")
    torch._check(multiplier.shape == (per_group * groups,), lambda: "one multiplier a channel")
    sizes = [
        (x.shape[2 + i] - 1) * stride[i]
        - 2 * padding[i]
        + dilation[i] * (kernel[i] - 1)
        + output_padding[i]
        + 1
        for i in range(2)
    ]
    return x.new_empty((x.shape[0], per_group * groups, *sizes), dtype=dtype)


def resize_i8(
    x: torch.Tensor,
    rows: torch.Tensor,
    row_weights: torch.Tensor,
    columns: torch.Tensor,
    column_weights: torch.Tensor,
    multiplier: float,
    x_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Linear interpolation of an image: each output reads two rows and two columns.

    `acc = sum over i, j of row_weights[y, i] * column_weights[x, j] * (q[rows[y, i],
    columns[x, j]] - zx)`, below 2**29 in magnitude; then requantize.

    Args:
        x: uint8 or int8 [n, channels, h, w].
        rows: int32 [oh, 2], the rows that each output row reads.
        row_weights: int32 [oh, 2], at least 0, summing to 2**10.
        columns: int32 [ow, 2].
        column_weights: int32 [ow, 2], likewise.
        multiplier: `sx / sy * 2**-20`.
        x_zero_point: Of the input.
        y_zero_point: Of the output.
        lo: Smallest output, in the quantized domain.
        hi: Largest output.
        dtype: torch.uint8 or torch.int8.
    """
    centered = x.to(torch.int32) - x_zero_point
    tall = sum(
        centered[:, :, rows[:, i].long()] * row_weights[:, i].view(1, 1, -1, 1) for i in range(2)
    )
    assert isinstance(tall, torch.Tensor)
    wide = sum(
        tall[:, :, :, columns[:, j].long()] * column_weights[:, j].view(1, 1, 1, -1)
        for j in range(2)
    )
    assert isinstance(wide, torch.Tensor)
    return requantize(wide, multiplier, y_zero_point, lo, hi, dtype)


def pad_i8(x: torch.Tensor, pad: list[int], value: int) -> torch.Tensor:
    """Pad with a quantized value; `pad` as in torch: last axis first, negative sizes crop."""
    return F.pad(x.to(torch.int32), pad, value=value).to(x.dtype)


def _pad_shape(x: torch.Tensor, pad: list[int], value: int) -> torch.Tensor:
    sizes = list(x.shape)
    for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), 1):
        sizes[-axis] = sizes[-axis] + before + after
    return x.new_empty(sizes)


define(
    "conv_transpose2d_i8(Tensor x, Tensor weight, Tensor? bias, Tensor multiplier, int[2] stride, "
    "int[2] padding, int[2] output_padding, int[2] dilation, int groups, int x_zero_point, "
    "int y_zero_point, int lo, int hi, ScalarType dtype) -> Tensor",
    conv_transpose2d_i8,
    _conv_transpose2d_shape,
)
define(
    "resize_i8(Tensor x, Tensor rows, Tensor row_weights, Tensor columns, Tensor column_weights, "
    "float multiplier, int x_zero_point, int y_zero_point, int lo, int hi, ScalarType dtype)"
    " -> Tensor",
    resize_i8,
    lambda x, rows, row_weights, columns, *rest: x.new_empty(
        (*x.shape[:2], rows.shape[0], columns.shape[0]), dtype=rest[-1]
    ),
)
define("pad_i8(Tensor x, int[] pad, int value) -> Tensor", pad_i8, _pad_shape)

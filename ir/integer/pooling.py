"""max_pool2d_i8, avg_pool2d_i8, adaptive_avg_pool2d_i8."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .arithmetic import requantize, wrap_int32
from .define import define


def pooled_size(
    size: int, kernel: int, stride: int, before: int, after: int, dilation: int, ceil_mode: bool
) -> int:
    """Return the number of windows along one axis, as torch counts them.

    With ceil_mode a last window may start inside the input or its leading padding and reach past
    the end, but none starts in the trailing padding.
    """
    span = size + before + after - dilation * (kernel - 1) - 1
    windows = -(-span // stride) + 1 if ceil_mode else span // stride + 1
    if ceil_mode and (windows - 1) * stride >= size + before:
        windows -= 1
    return windows


def _pad_for_windows(
    x: torch.Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    value: float,
) -> torch.Tensor:
    """Pad [n, c, h, w] so that exactly the windows of the pool fit."""
    amounts: list[int] = []
    for axis in (1, 0):
        before, after = padding[axis], padding[2 + axis]
        size = x.shape[2 + axis]
        count = pooled_size(
            size, kernel[axis], stride[axis], before, after, dilation[axis], ceil_mode
        )
        reach = (count - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        amounts += [before, max(reach - size - before, 0)]
    return F.pad(x, amounts, value=value)


def max_pool2d_i8(
    x: torch.Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
) -> torch.Tensor:
    """Largest value of each window; padding never wins. [n, c, h, w] in uint8 or int8."""
    padded = _pad_for_windows(
        x.to(torch.float32), kernel, stride, padding, dilation, ceil_mode, float("-inf")
    )
    return F.max_pool2d(padded, kernel, stride, 0, dilation).to(x.dtype)


def avg_pool2d_i8(
    x: torch.Tensor,
    multiplier: torch.Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    x_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """`acc = sum(x - zx)` over each window (padding adds nothing), then requantize.

    `multiplier` is float32 [oh, ow]: sx / (sy * count), where count is the divisor of the window
    at that position, so that borders may count their padding or not.
    """
    centered = x.to(torch.float64) - x_zero_point
    padded = _pad_for_windows(centered, kernel, stride, padding, [1, 1], ceil_mode, 0.0)
    sums = F.avg_pool2d(padded, kernel, stride, divisor_override=1)
    accumulator = wrap_int32(torch.round(sums))
    return requantize(accumulator, multiplier, y_zero_point, lo, hi, dtype)


def adaptive_windows(size: int, output: int) -> list[tuple[int, int]]:
    """Return torch's adaptive windows along one axis, as (start, end) pairs."""
    return [(i * size // output, -(-(i + 1) * size // output)) for i in range(output)]


def adaptive_avg_pool2d_i8(
    x: torch.Tensor,
    multiplier: torch.Tensor,
    output_size: list[int],
    x_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """As `avg_pool2d_i8`, over torch's adaptive windows; `multiplier` is float32 [oh, ow]."""
    centered = x.to(torch.int32) - x_zero_point
    rows = [
        torch.stack(
            [
                centered[:, :, top:bottom, left:right].sum((2, 3), dtype=torch.int64)
                for left, right in adaptive_windows(x.shape[3], output_size[1])
            ],
            -1,
        )
        for top, bottom in adaptive_windows(x.shape[2], output_size[0])
    ]
    accumulator = torch.stack(rows, -2).to(torch.int32)
    return requantize(accumulator, multiplier, y_zero_point, lo, hi, dtype)


def _windows_shape(
    x: torch.Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    sizes = [
        pooled_size(
            x.shape[2 + i], kernel[i], stride[i], padding[i], padding[2 + i], dilation[i], ceil_mode
        )
        for i in range(2)
    ]
    return x.new_empty((x.shape[0], x.shape[1], *sizes), dtype=dtype)


define(
    "max_pool2d_i8(Tensor x, int[2] kernel, int[2] stride, int[4] padding, int[2] dilation, "
    "bool ceil_mode) -> Tensor",
    max_pool2d_i8,
    lambda x, kernel, stride, padding, dilation, ceil_mode: _windows_shape(
        x, kernel, stride, padding, dilation, ceil_mode, x.dtype
    ),
)
define(
    "avg_pool2d_i8(Tensor x, Tensor multiplier, int[2] kernel, int[2] stride, int[4] padding, "
    "bool ceil_mode, int x_zero_point, int y_zero_point, int lo, int hi, ScalarType dtype)"
    " -> Tensor",
    avg_pool2d_i8,
    lambda x, multiplier, kernel, stride, padding, ceil_mode, *rest: _windows_shape(
        x, kernel, stride, padding, [1, 1], ceil_mode, rest[-1]
    ),
)
define(
    "adaptive_avg_pool2d_i8(Tensor x, Tensor multiplier, int[2] output_size, int x_zero_point, "
    "int y_zero_point, int lo, int hi, ScalarType dtype) -> Tensor",
    adaptive_avg_pool2d_i8,
    lambda x, multiplier, output_size, *rest: x.new_empty(
        (x.shape[0], x.shape[1], *output_size), dtype=rest[-1]
    ),
)

"""mul_i8, matmul_i8, and the products that leave the integer region: conv2d_dq, linear_dq."""

from __future__ import annotations

import torch

from .arithmetic import requantize, wrap_int32
from .define import define
from .layers import convolution_shape, convolution_sum, linear_shape, linear_sum


def mul_i8(
    a: torch.Tensor,
    b: torch.Tensor,
    multiplier: float,
    a_zero_point: int,
    b_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """`acc = (a - za) * (b - zb)`, requantized by `sa * sb / sy`. a and b broadcast as in torch."""
    left, right = a.to(torch.int32) - a_zero_point, b.to(torch.int32) - b_zero_point
    return requantize(left * right, multiplier, y_zero_point, lo, hi, dtype)


def matmul_i8(
    a: torch.Tensor,
    b: torch.Tensor,
    multiplier: float,
    a_zero_point: int,
    b_zero_point: int,
    y_zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """`acc[..., m, n] = sum over k of (a[..., m, k] - za) * (b[..., k, n] - zb)`; then requantize.

    Args:
        a: uint8 or int8 [..., m, k], at least two axes.
        b: uint8 or int8 [..., k, n], at least two axes; the leading axes broadcast.
        multiplier: `sa * sb / sy`.
        a_zero_point: Of a.
        b_zero_point: Of b.
        y_zero_point: Of the output.
        lo: Smallest output, in the quantized domain.
        hi: Largest output.
        dtype: torch.uint8 or torch.int8.
    """
    accumulator = _matmul_sum(a, b, a_zero_point, b_zero_point)
    return requantize(accumulator, multiplier, y_zero_point, lo, hi, dtype)


def conv2d_dq(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    multiplier: torch.Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    x_zero_point: int,
) -> torch.Tensor:
    """conv2d_i8's sum as a real number: `float32(acc) * multiplier[c]`, multiplier `sx * sw[c]`.

    For convolutions whose result nobody quantized: the end of a network, or another tool's model.
    Arguments as for conv2d_i8; padding is [top, left, bottom, right].
    """
    accumulator = convolution_sum(x, weight, bias, stride, padding, dilation, groups, x_zero_point)
    return accumulator.to(torch.float32) * multiplier.view(1, -1, 1, 1)


def linear_dq(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    multiplier: torch.Tensor,
    x_zero_point: int,
) -> torch.Tensor:
    """linear_i8's sum as a real number: `float32(acc) * multiplier[c]`, multiplier `sx * sw[c]`."""
    return linear_sum(x, weight, bias, x_zero_point).to(torch.float32) * multiplier


def matmul_dq(
    a: torch.Tensor, b: torch.Tensor, multiplier: float, a_zero_point: int, b_zero_point: int
) -> torch.Tensor:
    """matmul_i8's sum as a real number: `float32(acc) * multiplier`, multiplier `sa * sb`."""
    factor = torch.as_tensor(multiplier, dtype=torch.float32, device=a.device)
    return _matmul_sum(a, b, a_zero_point, b_zero_point).to(torch.float32) * factor


def _matmul_sum(
    a: torch.Tensor, b: torch.Tensor, a_zero_point: int, b_zero_point: int
) -> torch.Tensor:
    """Return matmul_i8's int32 accumulator [..., m, n]."""
    exact = torch.matmul(a.to(torch.float64) - a_zero_point, b.to(torch.float64) - b_zero_point)
    return wrap_int32(torch.round(exact))


def _matmul_shape(a: torch.Tensor, b: torch.Tensor) -> tuple[int, ...]:
    torch._check(a.dim() >= 2 and b.dim() >= 2, lambda: "matmul_i8 needs two axes or more")
    torch._check(a.shape[-1] == b.shape[-2], lambda: "the inner sizes of the matrices differ")
    return (*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])


define(
    "mul_i8(Tensor a, Tensor b, float multiplier, int a_zero_point, int b_zero_point, "
    "int y_zero_point, int lo, int hi, ScalarType dtype) -> Tensor",
    mul_i8,
    lambda a, b, *rest: a.new_empty(torch.broadcast_shapes(a.shape, b.shape), dtype=rest[-1]),
)
define(
    "matmul_i8(Tensor a, Tensor b, float multiplier, int a_zero_point, int b_zero_point, "
    "int y_zero_point, int lo, int hi, ScalarType dtype) -> Tensor",
    matmul_i8,
    lambda a, b, *rest: a.new_empty(_matmul_shape(a, b), dtype=rest[-1]),
)
define(
    "conv2d_dq(Tensor x, Tensor weight, Tensor? bias, Tensor multiplier, int[2] stride, "
    "int[4] padding, int[2] dilation, int groups, int x_zero_point) -> Tensor",
    conv2d_dq,
    lambda x, weight, bias, multiplier, stride, padding, dilation, groups, zero: x.new_empty(
        convolution_shape(x, weight, multiplier, stride, padding, dilation, groups),
        dtype=torch.float32,
    ),
)
define(
    "linear_dq(Tensor x, Tensor weight, Tensor? bias, Tensor multiplier, int x_zero_point)"
    " -> Tensor",
    linear_dq,
    lambda x, weight, bias, multiplier, zero: x.new_empty(
        linear_shape(x, weight, multiplier), dtype=torch.float32
    ),
)
define(
    "matmul_dq(Tensor a, Tensor b, float multiplier, int a_zero_point, int b_zero_point) -> Tensor",
    matmul_dq,
    lambda a, b, *rest: a.new_empty(_matmul_shape(a, b), dtype=torch.float32),
)

"""fake_quantize: quantize and dequantize at once, with a straight-through gradient."""

from __future__ import annotations

from typing import Any

import torch

from .arithmetic import quantize
from .define import _library, define


def _along(axis: int | None, parameter: torch.Tensor, dim: int) -> torch.Tensor:
    """Shape a per-channel parameter so that it broadcasts along `axis`."""
    if axis is None:
        return parameter
    shape = [1] * dim
    shape[axis] = -1
    return parameter.view(shape)


def fake_quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    axis: int | None,
    lo: int,
    hi: int,
) -> torch.Tensor:
    """`(quantize(x) - zero_point) * scale`, float32 in and out.

    Its values are those of the integer operators quantize and dequantize, bit for bit. The
    gradient passes unchanged where `x` is inside the clamp, and is zero outside
    (straight-through estimator, Bengio et al. 2013, section 4).

    Args:
        x: float32, any shape.
        scale: float32 [] or, with `axis`, [channels].
        zero_point: int32, shaped as `scale`.
        axis: The channel axis of `x`, or None for one scale.
        lo: Smallest quantized value.
        hi: Largest quantized value.
    """
    spread, shift = _along(axis, scale, x.dim()), _along(axis, zero_point, x.dim())
    return (quantize(x, spread, shift, lo, hi) - shift) * spread


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        scale: torch.Tensor,
        zero_point: torch.Tensor,
        axis: int | None,
        lo: int,
        hi: int,
    ) -> torch.Tensor:
        spread, shift = _along(axis, scale, x.dim()), _along(axis, zero_point, x.dim())
        position = torch.round(x / spread) + shift
        ctx.save_for_backward((position >= lo) & (position <= hi))
        return (torch.clamp(torch.nan_to_num(position, nan=lo), lo, hi) - shift) * spread

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None, None, None


define(
    "fake_quantize(Tensor x, Tensor scale, Tensor zero_point, int? axis, int lo, int hi) -> Tensor",
    fake_quantize,
    lambda x, scale, zero_point, axis, lo, hi: torch.empty_like(x),
)
_library.impl("fake_quantize", _StraightThrough.apply, "Autograd")

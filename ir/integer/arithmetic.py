"""Quantize, dequantize and requantize, as exact formulas on tensors."""

from __future__ import annotations

import math

import torch

# Largest multiplier of a fixed-point addition: two products of a 9-bit difference with a 15-bit
# multiplier sum to less than 2**24, so that their float32 conversion is exact and vpmaddwd applies.
_ADD_LIMIT = 32767


def dtype_range(dtype: torch.dtype) -> tuple[int, int]:
    """Return the smallest and largest value of an integer dtype."""
    info = torch.iinfo(dtype)
    return int(info.min), int(info.max)


def quantize(
    x: torch.Tensor, scale: torch.Tensor | float, zero_point: torch.Tensor | int, lo: int, hi: int
) -> torch.Tensor:
    """Return `clamp(rne(x / scale) + zero_point, lo, hi)` as float32 integers.

    The division is one IEEE float32 division. A NaN becomes `lo`: every target has to give it
    some value, and this is the one that a maximum followed by a minimum gives.
    """
    scaled = x / torch.as_tensor(scale, dtype=torch.float32, device=x.device)
    shifted = torch.nan_to_num(
        torch.round(scaled), nan=-math.inf, posinf=math.inf, neginf=-math.inf
    )
    return torch.clamp(shifted + zero_point, lo, hi)


def dequantize(
    q: torch.Tensor, scale: torch.Tensor | float, zero_point: torch.Tensor | int
) -> torch.Tensor:
    """Return `(q - zero_point) * scale` in float32: one exact subtraction, one multiplication."""
    difference = q.to(torch.float32) - zero_point
    return difference * torch.as_tensor(scale, dtype=torch.float32, device=q.device)


def requantize(
    accumulator: torch.Tensor,
    multiplier: torch.Tensor | float,
    zero_point: int,
    lo: int,
    hi: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Return `clamp(rne(float32(accumulator) * multiplier) + zero_point, lo, hi)` as `dtype`.

    Args:
        accumulator: int32, any shape.
        multiplier: float32, one value or a tensor that broadcasts against the accumulator.
        zero_point: Of the output.
        lo: Smallest result, in the quantized domain.
        hi: Largest result.
        dtype: torch.uint8 or torch.int8.
    """
    assert accumulator.dtype == torch.int32, accumulator.dtype
    factor = torch.as_tensor(multiplier, dtype=torch.float32, device=accumulator.device)
    rounded = torch.round(accumulator.to(torch.float32) * factor)
    # Clamped before the zero point is added, so that no value leaves float32's exact integers.
    clamped = torch.clamp(rounded, lo - zero_point, hi - zero_point)
    return (clamped.to(torch.int32) + zero_point).to(dtype)


def wrap_int32(exact: torch.Tensor) -> torch.Tensor:
    """Reduce exact float64 integers (below 2**53) modulo 2**32 to int32, as accumulators wrap."""
    return exact.to(torch.int64).to(torch.int32)


def requantize_multiplier(
    x_scale: float, weight_scale: torch.Tensor | float, y_scale: float
) -> torch.Tensor:
    """Return `float32(x_scale * weight_scale / y_scale)`, computed in float64."""
    weight = torch.as_tensor(weight_scale, dtype=torch.float64)
    return (float(x_scale) * weight / float(y_scale)).to(torch.float32)


def fixed_point_add(a_scale: float, b_scale: float, y_scale: float) -> tuple[int, int, int]:
    """Return (a_multiplier, b_multiplier, shift) for `add_i8`.

    Both ratios to the output scale become integers over one power of two, the largest one that
    keeps them at most 32767: a_multiplier = rne(a_scale / y_scale * 2**shift).
    """
    ratios = (float(a_scale) / float(y_scale), float(b_scale) / float(y_scale))
    # Half a step of margin: scales that differ in their last bit must not choose another shift.
    shift = math.floor(math.log2((_ADD_LIMIT - 0.5) / max(ratios)))
    return round(ratios[0] * 2.0**shift), round(ratios[1] * 2.0**shift), shift

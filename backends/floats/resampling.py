"""Upsampling in float islands: rows and columns picked by stored indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Tensor = torch.Tensor
_aten = torch.ops.aten
_f32 = np.float32


def _nearest_positions(size: int, count: int, scale: float | None) -> Tensor:
    """Return which input row each output row shows, as torch computes it: in float32."""
    step = _f32(1.0 / scale) if scale else _f32(size) / _f32(count)
    index = np.floor(np.arange(count, dtype=_f32) * step).astype(np.int64)
    return torch.from_numpy(np.minimum(index, size - 1))


def _nearest(
    x: Tensor,
    output_size: Sequence[int],
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Tensor:
    for axis, scale in ((2, scales_h), (3, scales_w)):
        size, count = x.shape[axis], output_size[axis - 2]
        if count % size == 0 and not scale:
            shape = [*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]]
            wide = [*x.shape[: axis + 1], count // size, *x.shape[axis + 1 :]]
            x = x.reshape(shape).expand(wide).reshape(*x.shape[:axis], count, *x.shape[axis + 1 :])
        else:
            positions = _nearest_positions(size, count, scale)
            x = _aten.index_select.default(x, axis, positions)
    return x


def _linear_weights(
    size: int, count: int, scale: float | None, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two rows that each output row lies between, and the second one's share."""
    place = np.arange(count, dtype=_f32)
    if align_corners:
        step = _f32(size - 1) / _f32(count - 1) if count > 1 else _f32(0)
        source = place * step
    else:
        step = _f32(1.0 / scale) if scale else _f32(size) / _f32(count)
        source = np.maximum((place + _f32(0.5)) * step - _f32(0.5), _f32(0))
    first = np.minimum(source.astype(np.int64), size - 1)
    second = np.minimum(first + 1, size - 1)
    share = np.clip(source - first.astype(_f32), _f32(0), _f32(1))
    return torch.from_numpy(first), torch.from_numpy(second), torch.from_numpy(share)


def _bilinear(
    x: Tensor,
    output_size: Sequence[int],
    align_corners: bool,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Tensor:
    for axis, scale in ((2, scales_h), (3, scales_w)):
        count = output_size[axis - 2]
        first, second, share = _linear_weights(x.shape[axis], count, scale, align_corners)
        weight = share.reshape([-1, 1] if axis == 2 else [-1]).to(x.dtype)
        a = _aten.index_select.default(x, axis, first)
        b = _aten.index_select.default(x, axis, second)
        x = a * (1 - weight) + b * weight
    return x


RESAMPLING: dict[Any, Callable[..., Any]] = {
    _aten.upsample_nearest2d.default: _nearest,
    _aten.upsample_bilinear2d.default: _bilinear,
}

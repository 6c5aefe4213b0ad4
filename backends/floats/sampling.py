"""Sampling at given positions, and overlapping blocks summed, in float islands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

import torch
import torch.nn.functional as F

Tensor = torch.Tensor
_aten = torch.ops.aten
_BILINEAR, _NEAREST = 0, 1
_ZEROS, _BORDER = 0, 1


def _place(position: Tensor, size: int, padding_mode: int, align_corners: bool) -> Tensor:
    """Return where a position in [-1, 1] lies on an axis, as torch's grid_sample counts."""
    place = (position + 1) / 2 * (size - 1) if align_corners else ((position + 1) * size - 1) / 2
    if padding_mode == _ZEROS:
        return place
    if padding_mode != _BORDER:
        place = _reflected(place, size, align_corners)
    return place.clamp(0, size - 1)


def _reflected(place: Tensor, size: int, align_corners: bool) -> Tensor:
    low, span = (0.0, float(size - 1)) if align_corners else (-0.5, float(size))
    if span == 0:
        return torch.zeros_like(place)
    distance = (place - low).abs()
    turns = torch.floor(distance / span)
    rest = distance - turns * span
    even = (turns - 2 * torch.floor(turns / 2)) == 0
    return torch.where(even, rest + low, span - rest + low)


def _grid_sampler(
    x: Tensor, grid: Tensor, mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """grid_sampler_2d and _3d, nearest and linear: a gather for each corner of a cell."""
    if mode not in (_BILINEAR, _NEAREST):
        raise NotImplementedError("bicubic sampling")
    images, channels, *sizes = x.shape
    flat = x.reshape(images, channels, -1)
    # The last entry of a position counts the last axis.
    places = [
        _place(grid[..., len(sizes) - 1 - axis], size, padding_mode, align_corners)
        for axis, size in enumerate(sizes)
    ]
    firsts = [torch.round(p) if mode == _NEAREST else torch.floor(p) for p in places]
    corners = [(0,) * len(sizes)] if mode == _NEAREST else product((0, 1), repeat=len(sizes))
    total: Tensor | None = None
    for corner in corners:
        weight: Tensor | None = None
        number = torch.zeros_like(places[0], dtype=torch.int64)
        for place, first, step, size in zip(places, firsts, corner, sizes, strict=True):
            at = first + step
            share = torch.where((at >= 0) & (at <= size - 1), 1.0, 0.0)
            if mode != _NEAREST:
                share = share * (1 - (place - at).abs())
            weight = share if weight is None else weight * share
            number = number * size + at.clamp(0, size - 1).to(torch.int64)
        index = number.reshape(images, 1, -1).expand(-1, channels, -1)
        assert weight is not None
        taken = torch.gather(flat, 2, index) * weight.reshape(images, 1, -1)
        total = taken if total is None else total + taken
    assert total is not None
    return total.reshape(images, channels, *grid.shape[1:-1])


def _col2im(
    x: Tensor,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    """Each value of each block is added where it came from; where is known beforehand."""
    height, width = (size + 2 * side for size, side in zip(output_size, padding, strict=True))
    counts = [
        (size - dilation[axis] * (kernel_size[axis] - 1) - 1) // stride[axis] + 1
        for axis, size in enumerate((height, width))
    ]
    rows, columns = (
        (torch.arange(kernel_size[a]) * dilation[a]).reshape(-1, 1)
        + (torch.arange(counts[a]) * stride[a]).reshape(1, -1)
        for a in (0, 1)
    )
    number = rows[:, None, :, None] * width + columns[None, :, None, :]
    batched = x.reshape(-1, *x.shape[-2:])
    taps = prod(kernel_size)
    channels = batched.shape[1] // taps
    values = batched.reshape(batched.shape[0], channels, -1)
    index = number.reshape(1, 1, -1).expand(values.shape)
    image = torch.zeros(*values.shape[:2], height * width, dtype=x.dtype)
    image = torch.scatter_add(image, 2, index, values).reshape(*values.shape[:2], height, width)
    top, left = padding
    image = F.pad(image, [-left, -left, -top, -top])
    return image.reshape(*x.shape[:-2], channels, *output_size)


def _max_pool2d_with_indices(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """Every window laid out along an axis, then its largest value and where that was."""
    kernel, side, step = (list(v) * (2 // len(v)) for v in (kernel_size, padding, dilation))
    pace = list(stride or kernel) * (2 // len(stride or kernel))
    counts = F.max_pool2d(x, kernel, pace, side, step, ceil_mode).shape[-2:]
    rows, columns = (
        (torch.arange(kernel[a]) * step[a] - side[a]).reshape(-1, 1)
        + torch.arange(counts[a]) * pace[a]
        for a in (0, 1)
    )
    height, width = x.shape[-2:]
    inside = ((rows >= 0) & (rows < height))[:, None, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[None, :, None, :]
    number = rows.clamp(0, height - 1)[:, None, :, None] * width
    number = (number + columns.clamp(0, width - 1)[None, :, None, :]).reshape(-1)
    flat = x.reshape(*x.shape[:-2], -1)
    taps = torch.index_select(flat, flat.dim() - 1, number)
    # Values outside never win: they are below every value.
    outside = torch.where(inside.reshape(-1), 0.0, float("-inf"))
    taps = (taps + outside).reshape(*x.shape[:-2], prod(kernel), prod(counts))
    winner = torch.argmax(taps, -2, keepdim=True)
    places = number.reshape(prod(kernel), prod(counts)).expand(taps.shape)
    where = torch.gather(places, taps.dim() - 2, winner)
    shape = [*x.shape[:-2], *counts]
    return torch.amax(taps, -2).reshape(shape), where.reshape(shape)


def _repeat_interleave(
    x: Tensor, repeats: int, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    del output_size
    flat, axis = (x.reshape(-1), 0) if dim is None else (x, dim % x.dim())
    shape = [*flat.shape[: axis + 1], repeats, *flat.shape[axis + 1 :]]
    wide = flat.unsqueeze(axis + 1).expand(shape)
    return wide.reshape(*flat.shape[:axis], -1, *flat.shape[axis + 1 :])


SAMPLING: dict[Any, Callable[..., Any]] = {
    _aten.grid_sampler.default: _grid_sampler,
    _aten.grid_sampler_2d.default: _grid_sampler,
    _aten.grid_sampler_3d.default: _grid_sampler,
    _aten.col2im.default: _col2im,
    _aten.max_pool2d_with_indices.default: _max_pool2d_with_indices,
    _aten.repeat_interleave.self_int: _repeat_interleave,
}

"""Converters of pools."""

from __future__ import annotations

import math
from math import prod
from typing import Any

import torch
import torch.nn.functional as F

from ..call import Call
from ..registry import converts
from ..values import Operand, Value
from .elementwise import cast
from .windows import Windows, pad_ends, windows

aten = torch.ops.aten


def _windows(call: Call, x: Operand) -> Windows:
    found = windows(call, x, call.integers("kernel_shape"))
    if len(found.kernel) > 3:
        raise call.refuse(f"has {len(found.kernel)} spatial axes; 1 to 3 are supported")
    return found


def _ceiled(call: Call, x: Operand, found: Windows) -> Windows:
    """Return windows whose padding at the ends makes room for the last, cut-off window.

    A window that would begin in the padding behind is left out, as ONNX and torch do.
    """
    if not call.flag("ceil_mode"):
        return found
    ends = list(found.ends)
    for axis, stride in enumerate(found.strides):
        size = call.fixed(x, axis + 2) + found.begins[axis]
        span = size + ends[axis] - found.reach(axis)
        count = -(-span // stride) + 1
        if (count - 1) * stride >= size:
            count -= 1
        ends[axis] += max(0, (count - 1) * stride - span)
    return Windows(found.kernel, found.strides, found.dilations, found.begins, ends)


@converts("MaxPool", moves=True)
def convert_max_pool(call: Call) -> Any:
    x = call.operand(0)
    dtype = call.dtype(x)
    found = _ceiled(call, x, _windows(call, x))
    if call.wants(1):
        return _with_indices(call, x, found)
    whole = not dtype.is_floating_point
    # torch pools floats; what 8-bit integers hold is exact in them.
    y = _max_pool(call, cast(call, x, torch.float32) if whole else x, found)
    return cast(call, y, dtype)


def _max_pool(call: Call, x: Operand, found: Windows) -> Operand:
    rank = len(found.kernel)
    if rank == 1:
        x, found = call.emit(aten.unsqueeze.default, x, 2), found.two_dimensional()
    own = all(
        begin == end and 0 <= begin <= kernel // 2
        for begin, end, kernel in zip(found.begins, found.ends, found.kernel, strict=True)
    )
    padding = found.begins if own else [0] * len(found.kernel)
    if not own:
        x = pad_ends(call, x, found.begins, found.ends, -math.inf)
    target = aten.max_pool3d.default if rank == 3 else aten.max_pool2d.default
    y = call.emit(target, x, found.kernel, found.strides, padding, found.dilations, False)
    return call.emit(aten.squeeze.dims, y, [2]) if rank == 1 else y


def _with_indices(call: Call, x: Operand, found: Windows) -> list[Operand]:
    """ONNX counts positions in the whole tensor [n, c, *spatial], torch in each plane."""
    if len(found.kernel) != 2 or not call.dtype(x).is_floating_point:
        raise call.refuse("gives indices of other than two spatial axes of floats")
    batch, channels, height, width = (call.fixed(x, axis) for axis in range(4))
    # Positions are padded along with the values, by what is never the largest.
    places = torch.arange(batch * channels * height * width)
    planes = places.reshape(batch, channels, height, width)
    if call.flag("storage_order"):
        per_plane = torch.arange(height * width).reshape(width, height).t()
        first = torch.arange(batch * channels).reshape(batch, channels, 1, 1) * height * width
        planes = first + per_plane
    top, left = found.begins
    padded = F.pad(planes, [left, found.ends[1], top, found.ends[0]])
    x = pad_ends(call, x, found.begins, found.ends, -math.inf)
    y, index = call.pieces(
        aten.max_pool2d_with_indices.default,
        2,
        x,
        found.kernel,
        found.strides,
        [0, 0],
        found.dilations,
        False,
    )
    flat = call.make(padded.reshape(batch, channels, -1), "positions")
    chosen = call.emit(
        aten.gather.default, flat, 2, call.emit(aten.reshape.default, index, [batch, channels, -1])
    )
    return [y, call.emit(aten.reshape.default, chosen, call.shape(y))]


@converts("AveragePool")
def convert_average_pool(call: Call) -> Value:
    x = call.operand(0)
    given = _windows(call, x)
    found = _ceiled(call, x, given)
    counted = call.flag("count_include_pad")
    even = found.begins == found.ends and max(found.dilations) == 1
    small = all(0 <= b <= k // 2 for b, k in zip(found.begins, found.kernel, strict=True))
    rank = len(found.kernel)
    if not (even and small and call.dtype(x).is_floating_point):
        return _average(call, x, given, found, counted)
    if rank == 1:
        x, found = call.emit(aten.unsqueeze.default, x, 2), found.two_dimensional()
    target = aten.avg_pool3d.default if rank == 3 else aten.avg_pool2d.default
    y = call.emit(target, x, found.kernel, found.strides, found.begins, False, counted)
    return call.emit(aten.squeeze.dims, y, [2]) if rank == 1 else y


def _average(call: Call, x: Operand, given: Windows, found: Windows, counted: bool) -> Operand:
    """Sums of windows divided by how many entries each has: stored numbers."""
    spatial = [call.fixed(x, axis + 2) for axis in range(len(found.kernel))]
    inside = torch.ones(1, 1, *spatial)
    if counted:
        inside = F.pad(inside, _amounts(given.begins, given.ends), value=1.0)
        rest = [e - g for e, g in zip(found.ends, given.ends, strict=True)]
        inside = F.pad(inside, _amounts([0] * len(rest), rest))
    else:
        inside = F.pad(inside, _amounts(found.begins, found.ends))
    counts = _SUMS[len(found.kernel)](
        inside, torch.ones(1, 1, *found.kernel), None, found.strides, 0, found.dilations
    )
    total = window_sums(call, x, found)
    factors = (1 / counts).to(call.dtype(x))
    return call.emit(aten.mul.Tensor, total, call.make(factors, "counts"))


_SUMS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _amounts(begins: list[int], ends: list[int]) -> list[int]:
    pairs = zip(reversed(begins), reversed(ends), strict=True)
    return [amount for pair in pairs for amount in pair]


def window_sums(call: Call, x: Operand, found: Windows) -> Operand:
    """Return the sum of each window: a convolution of each channel with ones."""
    rank = len(found.kernel)
    channels = call.fixed(x, 1)
    x = pad_ends(call, x, found.begins, found.ends, 0.0)
    if rank == 1:
        x, found = call.emit(aten.unsqueeze.default, x, 2), found.two_dimensional()
    ones = call.make(torch.ones(channels, 1, *found.kernel, dtype=call.dtype(x)), "ones")
    target = aten.conv3d.default if rank == 3 else aten.conv2d.default
    zeros = [0] * len(found.kernel)
    y = call.emit(target, x, ones, None, found.strides, zeros, found.dilations, channels)
    return call.emit(aten.squeeze.dims, y, [2]) if rank == 1 else y


@converts("LpPool", since=2)
def convert_lp_pool(call: Call) -> Value:
    x = call.operand(0)
    power = call.integer("p", 2)
    found = _ceiled(call, x, _windows(call, x))
    raised = call.emit(aten.pow.Tensor_Scalar, call.emit(aten.abs.default, x), float(power))
    return call.emit(aten.pow.Tensor_Scalar, window_sums(call, raised, found), 1 / power)


@converts("GlobalAveragePool", since=1)
def convert_global_average_pool(call: Call) -> Value:
    x = call.operand(0)
    if call.rank(x) == 4:
        return call.emit(aten.adaptive_avg_pool2d.default, x, [1, 1])
    return call.emit(aten.mean.dim, x, _spatial(call, x), True)


@converts("GlobalMaxPool", since=1, moves=True)
def convert_global_max_pool(call: Call) -> Value:
    x = call.operand(0)
    return call.emit(aten.amax.default, x, _spatial(call, x), True)


@converts("GlobalLpPool", since=2)
def convert_global_lp_pool(call: Call) -> Value:
    x = call.operand(0)
    power = call.integer("p", 2)
    raised = call.emit(aten.pow.Tensor_Scalar, call.emit(aten.abs.default, x), float(power))
    total = call.emit(aten.sum.dim_IntList, raised, _spatial(call, x), True)
    return call.emit(aten.pow.Tensor_Scalar, total, 1 / power)


def _spatial(call: Call, x: Operand) -> list[int]:
    if call.rank(x) < 3:
        raise call.refuse(f"needs spatial axes, has {call.rank(x)} axes")
    return list(range(2, call.rank(x)))


@converts("MaxUnpool", since=9)
def convert_max_unpool(call: Call) -> Value:
    """Put each value at its position in a tensor of zeros."""
    x, positions = call.operand(0), call.operand(1)
    found = _windows(call, x)
    batch, channels, *spatial = (call.fixed(x, axis) for axis in range(call.rank(x)))
    own = [
        (size - 1) * stride + kernel - begin - end
        for size, stride, kernel, begin, end in zip(
            spatial, found.strides, found.kernel, found.begins, found.ends, strict=True
        )
    ]
    wanted = call.whole(2) if call.has(2) else [batch, channels, *own]
    # Positions count in the layer's own output, even where a larger one is asked for.
    zeros = call.make(torch.zeros(batch * channels * prod(own), dtype=call.dtype(x)), "zeros")
    flat = [call.emit(aten.reshape.default, value, [-1]) for value in (positions, x)]
    filled = call.emit(aten.scatter.src, zeros, 0, *flat)
    y = call.emit(aten.reshape.default, filled, [batch, channels, *own])
    return pad_ends(
        call, y, [0] * len(own), [w - o for w, o in zip(wanted[2:], own, strict=True)], 0.0
    )

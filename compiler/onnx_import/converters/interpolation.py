"""Resampling along axes: nearest by positions, linear and cubic by stored matrices.

For each output position of an axis, `coordinates` says where it lies among the input's; a row of
weights says how much of each input position it takes. Source: the ONNX specification of Resize.
Where torch has an operator that computes the same (upsample_nearest2d, upsample_bilinear2d), that
one is used: backends have kernels for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..call import Call
from ..values import Operand
from .elementwise import add, cast

aten = torch.ops.aten
F = torch.float64


@dataclass(frozen=True)
class Resampling:
    """How to resample; the names are those of ONNX's attributes.

    Attributes:
        kind: "nearest", "linear" or "cubic".
        coordinates: coordinate_transformation_mode.
        rounding: nearest_mode.
        cubic: cubic_coeff_a.
        exclude_outside: Positions outside have no weight.
        extrapolation: What stands outside the window of tf_crop_and_resize.
        antialias: Widen the filter where the image shrinks.
        window: Start and end of the region of each axis, in parts of it, for tf_crop_and_resize.
    """

    kind: str
    coordinates: str
    rounding: str
    cubic: float = -0.75
    exclude_outside: bool = False
    extrapolation: float = 0.0
    antialias: bool = False
    window: tuple[tuple[float, float], ...] = ()

    def within(self, starts: list[float], ends: list[float]) -> Resampling:
        """Return the same on a window of the image."""
        return replace(self, window=tuple(zip(starts, ends, strict=True)))


def resample(
    call: Call, x: Operand, plan: dict[int, tuple[int, float]], axes: list[int], how: Resampling
) -> Operand:
    """Resample axes to sizes, given as axis -> (size, scale)."""
    if how.kind not in ("nearest", "linear", "cubic"):
        raise call.refuse(f"has the unknown mode {how.kind!r}")
    if not plan:
        return x
    known = _known_operator(call, x, plan, how)
    if known is not None:
        return known
    dtype = call.dtype(x)
    if how.kind == "nearest" and not how.window:
        for axis, (size, scale) in plan.items():
            where = coordinates(call, call.fixed(x, axis), size, scale, how, axes.index(axis))
            places = _rounded(call, where, how).clamp(0, call.fixed(x, axis) - 1).to(torch.int64)
            x = call.emit(aten.index_select.default, x, axis, call.make(places, f"positions{axis}"))
        return x
    y = cast(call, x, torch.float32) if not dtype.is_floating_point else x
    outside: Operand | None = None
    for axis, (size, scale) in plan.items():
        before = call.fixed(x, axis)
        where = coordinates(call, before, size, scale, how, axes.index(axis))
        matrix = weights(call, before, size, scale, where, how)
        if how.coordinates == "tf_crop_and_resize":
            beyond = (where < 0) | (where > before - 1)
            matrix[beyond] = 0
            shape = [1] * call.rank(x)
            shape[axis] = size
            mark = call.make(beyond.reshape(shape).to(torch.float32), f"outside{axis}")
            outside = mark if outside is None else call.emit(aten.maximum.default, outside, mark)
        y = _times(call, y, axis, matrix.to(call.dtype(y)))
    if outside is not None and how.extrapolation:
        y = add(call, y, call.emit(aten.mul.Tensor, outside, how.extrapolation))
    return cast(call, y, dtype)


def _times(call: Call, x: Operand, axis: int, matrix: torch.Tensor) -> Operand:
    """Multiply an axis by a matrix [out, in]."""
    last = call.rank(x) - 1
    if axis == last:
        return call.emit(
            aten.matmul.default, x, call.make(matrix.t().contiguous(), f"weights{axis}")
        )
    if axis == last - 1:
        return call.emit(aten.matmul.default, call.make(matrix, f"weights{axis}"), x)
    order = [*(a for a in range(last + 1) if a != axis), axis]
    moved = call.emit(aten.permute.default, x, order)
    y = call.emit(aten.matmul.default, moved, call.make(matrix.t().contiguous(), f"weights{axis}"))
    return call.emit(aten.permute.default, y, [order.index(a) for a in range(last + 1)])


def _known_operator(
    call: Call, x: Operand, plan: dict[int, tuple[int, float]], how: Resampling
) -> Operand | None:
    """Return upsample_nearest2d or upsample_bilinear2d where it computes the same."""
    if call.rank(x) != 4 or not set(plan) <= {2, 3} or not call.dtype(x).is_floating_point:
        return None
    if how.antialias or how.window or how.exclude_outside:
        return None
    before = [call.fixed(x, axis) for axis in (2, 3)]
    sizes = [plan.get(axis, (size, 1.0))[0] for axis, size in zip((2, 3), before, strict=True)]
    scales = [plan.get(axis, (0, 1.0))[1] for axis in (2, 3)]
    # Without a scale torch derives it from the sizes; ONNX uses the one that is stated.
    exact = all(abs(s * b - n) < 1e-6 for s, b, n in zip(scales, before, sizes, strict=True))
    halves = how.coordinates in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
    if not exact:
        if how.kind != "linear" or how.coordinates != "half_pixel":
            return None
        # The shortest decimal of a float32 is the scale as it was written.
        told = [float(str(np.float32(scale))) for scale in scales]
        return call.emit(aten.upsample_bilinear2d.default, x, sizes, False, *told)
    if how.kind == "nearest":
        whole = all(n % b == 0 for n, b in zip(sizes, before, strict=True))
        floors = how.coordinates == "asymmetric" and how.rounding == "floor"
        rounds = halves and how.rounding in ("round_prefer_floor", "round_prefer_ceil")
        if whole and (floors or rounds):
            return call.emit(aten.upsample_nearest2d.default, x, sizes)
        return None
    if how.kind != "linear":
        return None
    if how.coordinates == "align_corners":
        return call.emit(aten.upsample_bilinear2d.default, x, sizes, True)
    if halves and (how.coordinates == "half_pixel" or min(sizes) > 1):
        return call.emit(aten.upsample_bilinear2d.default, x, sizes, False)
    return None


def coordinates(
    call: Call, before: int, size: int, scale: float, how: Resampling, index: int
) -> torch.Tensor:
    """Return where each of `size` positions lies among `before` ones: float64 [size]."""
    x = torch.arange(size, dtype=F)
    kind = how.coordinates
    if kind == "half_pixel":
        return (x + 0.5) / scale - 0.5
    if kind == "pytorch_half_pixel":
        return (x + 0.5) / scale - 0.5 if size > 1 else torch.zeros(1, dtype=F)
    if kind == "half_pixel_symmetric":
        adjustment = size / (scale * before)
        return before / 2 * (1 - adjustment) + (x + 0.5) / scale - 0.5
    if kind == "asymmetric":
        return x / scale
    if kind == "align_corners":
        # The length that the scale means, which need not be a whole number.
        length = scale * before
        return x * (before - 1) / (length - 1) if length != 1 and size > 1 else torch.zeros_like(x)
    if kind == "tf_half_pixel_for_nn":
        return (x + 0.5) / scale
    if kind == "tf_crop_and_resize":
        start, end = how.window[index]
        if size == 1:
            return torch.full((1,), 0.5 * (start + end) * (before - 1), dtype=F)
        return start * (before - 1) + x * (end - start) * (before - 1) / (size - 1)
    raise call.refuse(f"has the unknown coordinate_transformation_mode {kind!r}")


def _rounded(call: Call, where: torch.Tensor, how: Resampling) -> torch.Tensor:
    if how.rounding == "floor":
        return where.floor()
    if how.rounding == "ceil":
        return where.ceil()
    if how.rounding == "round_prefer_floor":
        return (where - 0.5).ceil()
    if how.rounding == "round_prefer_ceil":
        return (where + 0.5).floor()
    raise call.refuse(f"has the unknown nearest_mode {how.rounding!r}")


def weights(
    call: Call, before: int, size: int, scale: float, where: torch.Tensor, how: Resampling
) -> torch.Tensor:
    """Return how much of each input position each output takes: float64 [size, before]."""
    if size * before > 1 << 26:
        raise call.refuse(f"resizes an axis from {before} to {size}: its weights take too much")
    if how.kind == "nearest":
        places = _rounded(call, where, how).clamp(0, before - 1).to(torch.int64)
        return torch.nn.functional.one_hot(places, before).to(F)
    widen = min(scale, 1.0) if how.antialias else 1.0
    reach = int((1 if how.kind == "linear" else 2) / widen) + 1
    base = where.floor()
    steps = torch.arange(-reach, reach + 2, dtype=F)
    places = base[:, None] + steps[None, :]
    distance = (places - where[:, None]).abs() * widen
    parts = (1 - distance).clamp(min=0) if how.kind == "linear" else _cubic(distance, how.cubic)
    if how.exclude_outside:
        parts = torch.where((places < 0) | (places > before - 1), 0.0, parts)
    if how.exclude_outside or how.antialias:
        parts = parts / parts.sum(1, keepdim=True)
    matrix = torch.zeros(size, before, dtype=F)
    return matrix.scatter_add(1, places.clamp(0, before - 1).to(torch.int64), parts)


def _cubic(distance: torch.Tensor, a: float) -> torch.Tensor:
    """Keys' cubic convolution kernel (IEEE Trans. ASSP 29(6), 1981, eq. 15)."""
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))

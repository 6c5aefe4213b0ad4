"""Converters of what moves and resamples images: Resize, Upsample, Pad, GridSample."""

from __future__ import annotations

import torch

from ..call import Call
from ..registry import converts
from ..values import Constant, Operand, Value
from .elementwise import cast
from .interpolation import Resampling, resample

aten = torch.ops.aten


@converts("Upsample", since=7, moves=True)
def convert_upsample(call: Call) -> Value:
    x = call.operand(0)
    factors = call.numbers("scales") if call.opset < 9 else _reals(call, 1)
    kind = call.text("mode", "nearest")
    if len(factors) != call.rank(x) or min(factors, default=0.0) <= 0:
        raise call.refuse(f"has the scales {factors} for {call.rank(x)} axes")
    how = Resampling(
        kind="linear" if kind in ("linear", "bilinear") else kind,
        coordinates="asymmetric",
        rounding="floor",
    )
    return _resized(call, x, list(range(call.rank(x))), factors, None, how)


def _reals(call: Call, index: int) -> list[float]:
    tensor = call.constant(index)
    if tensor.numel() > 64:
        raise call.refuse(f"has {tensor.numel()} entries in its input {index}")
    return [float(item) for item in tensor.reshape(-1).tolist()]


def _given(call: Call, index: int) -> bool:
    """Whether an input is given and isn't empty, which is how old opsets leave one out."""
    if not call.has(index):
        return False
    value = call.inputs[index]
    return not (isinstance(value, Constant) and value.tensor.numel() == 0)


@converts("Resize", since=10, moves=True)
def convert_resize_10(call: Call) -> Value:
    x = call.operand(0)
    how = Resampling(call.text("mode", "nearest"), "asymmetric", "floor")
    return _resized(call, x, list(range(call.rank(x))), _reals(call, 1), None, how)


@converts("Resize", since=11, moves=True)
def convert_resize(call: Call) -> Value:
    x = call.operand(0)
    axes = call.axes(x, call.integers("axes", list(range(call.rank(x)))))
    how = Resampling(
        kind=call.text("mode", "nearest"),
        coordinates=call.text("coordinate_transformation_mode", "half_pixel"),
        rounding=call.text("nearest_mode", "round_prefer_floor"),
        cubic=call.number("cubic_coeff_a", -0.75),
        exclude_outside=call.flag("exclude_outside"),
        extrapolation=call.number("extrapolation_value", 0.0),
        antialias=call.flag("antialias"),
    )
    if how.coordinates == "tf_crop_and_resize":
        window = _reals(call, 1)
        if len(window) != 2 * len(axes):
            raise call.refuse(f"has a window of {len(window)} numbers for {len(axes)} axes")
        how = how.within(window[: len(axes)], window[len(axes) :])
    if _given(call, 3):
        return _resized(call, x, axes, None, _target(call, x, axes), how)
    if not _given(call, 2):
        raise call.refuse("has neither scales nor sizes")
    return _resized(call, x, axes, _reals(call, 2), None, how)


def _target(call: Call, x: Operand, axes: list[int]) -> list[int]:
    """Return the sizes wanted on the axes; an open batch keeps its size."""
    wanted = call.sizes(3)
    if len(wanted) != len(axes):
        raise call.refuse(f"has {len(wanted)} sizes for {len(axes)} axes")
    sizes = [size if isinstance(size, int) else -1 for size in wanted]
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        ratios = [size / call.fixed(x, axis) for size, axis in zip(sizes, axes, strict=True)]
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        sizes = [int(ratio * call.fixed(x, axis) + 0.5) for axis in axes]
    return sizes


def _resized(
    call: Call,
    x: Operand,
    axes: list[int],
    factors: list[float] | None,
    sizes: list[int] | None,
    how: Resampling,
) -> Value:
    if factors is not None and len(factors) != len(axes):
        raise call.refuse(f"has {len(factors)} scales for {len(axes)} axes")
    plan: dict[int, tuple[int, float]] = {}
    for index, axis in enumerate(axes):
        before = call.shape(x)[axis]
        factor = factors[index] if factors is not None else None
        size = sizes[index] if sizes is not None else None
        if before is None:
            if factor == 1 or size == -1:
                continue
            raise call.refuse(f"resizes the batch, axis {axis}")
        if factor is None:
            assert size is not None
            factor = size / before if before else 1.0
        else:
            size = int(before * factor)
        if size < 1 or factor <= 0:
            raise call.refuse(f"resizes axis {axis} from {before} to {size}")
        if size != before or factor != 1 or how.window:
            plan[axis] = (size, factor)
    return resample(call, x, plan, axes, how)


@converts("Pad", since=2, moves=True)
def convert_pad_by_attributes(call: Call) -> Value:
    x = call.operand(0)
    return _padded(
        call, x, call.integers("pads"), list(range(call.rank(x))), call.number("value", 0.0)
    )


@converts("Pad", since=11, moves=True)
def convert_pad(call: Call) -> Value:
    x = call.operand(0)
    axes = call.whole(3) if call.has(3) else list(range(call.rank(x)))
    value: float | int | bool = call.real(2) if call.has(2) else 0
    return _padded(call, x, call.whole(1), call.axes(x, axes), value)


def _padded(call: Call, x: Operand, pads: list[int], axes: list[int], value: float) -> Value:
    if len(pads) != 2 * len(axes) or max(map(abs, pads), default=0) > 1 << 20:
        raise call.refuse(f"pads {len(axes)} axes by {pads}")
    amounts = {a: (pads[i], pads[i + len(axes)]) for i, a in enumerate(axes)}
    kind = call.text("mode", "constant")
    if kind != "constant":
        for axis, (before, after) in amounts.items():
            if before or after:
                x = _extended(call, x, axis, before, after, kind)
        return x
    flat = [n for axis in reversed(range(call.rank(x))) for n in amounts.get(axis, (0, 0))]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    if not any(flat):
        return x
    boolean = call.dtype(x) == torch.bool
    padded = call.emit(
        aten.constant_pad_nd.default, cast(call, x, torch.uint8) if boolean else x, flat, value
    )
    return cast(call, padded, torch.bool) if boolean else padded


def _extended(call: Call, x: Operand, axis: int, before: int, after: int, kind: str) -> Operand:
    """Pad one axis by entries of its own: their positions are known."""
    size = call.fixed(x, axis)
    # Negative amounts cut off first; what is left is extended.
    inside = torch.arange(size)[max(0, -before) : size - max(0, -after)]
    count = len(inside)
    if not count:
        raise call.refuse(f"pads axis {axis} of {size} entries by {before} and {after}")
    places = torch.arange(-max(before, 0), count + max(after, 0))
    if kind == "edge":
        places = places.clamp(0, count - 1)
    elif kind == "wrap":
        places = places % count
    elif kind == "reflect":
        period = max(1, 2 * (count - 1))
        places = places % period
        places = torch.where(places >= count, period - places, places)
    else:
        raise call.refuse(f"has the unknown mode {kind!r}")
    return call.emit(
        aten.index_select.default, x, axis, call.make(inside[places], f"positions{axis}")
    )


_KINDS = {"linear": 0, "bilinear": 0, "nearest": 1, "cubic": 2, "bicubic": 2}
_BORDERS = {"zeros": 0, "border": 1, "reflection": 2}


@converts("GridSample", since=16)
def convert_grid_sample(call: Call) -> Value:
    x, grid = call.operand(0), call.operand(1)
    kind, border = call.text("mode", "linear"), call.text("padding_mode", "zeros")
    aligned = call.flag("align_corners")
    if kind not in _KINDS or border not in _BORDERS or call.rank(x) not in (4, 5):
        raise call.refuse(f"has mode {kind!r}, padding {border!r} on {call.rank(x)} axes")
    if call.rank(x) == 5 and _KINDS[kind] == 2:
        raise call.refuse("is cubic on three spatial axes")
    target = aten.grid_sampler_2d.default if call.rank(x) == 4 else aten.grid_sampler_3d.default
    return call.emit(target, x, grid, _KINDS[kind], _BORDERS[border], aligned)


@converts("Col2Im", since=18)
def convert_col2im(call: Call) -> Value:
    x = call.operand(0)
    image, block = call.whole(1), call.whole(2)
    rank = len(image)
    dilations = call.integers("dilations", [1] * rank)
    strides = call.integers("strides", [1] * rank)
    pads = call.integers("pads", [0] * 2 * rank)
    if rank != 2 or pads[:2] != pads[2:]:
        raise call.refuse("has other than two spatial axes, or uneven pads")
    return call.emit(aten.col2im.default, x, image, block, dilations, pads[:2], strides)


@converts("RoiAlign", since=10)
def convert_roi_align(call: Call) -> Value:
    raise call.refuse(
        "samples regions of its input, which is not supported", cure="cut the model before it"
    )

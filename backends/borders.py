"""The border that an image needs around it in memory, for what reads it."""

from __future__ import annotations

import torch
import torch.fx

from planish.ir.ops import arguments

from .layout import NO_HALO, Halo
from .operators import sizes_of
from .phases import find_phases

_planish = torch.ops.planish
_CONVOLUTIONS = (_planish.conv2d_i8.default, _planish.conv2d_dq.default)
_TRANSPOSED = _planish.conv_transpose2d_i8.default
_PAD = _planish.pad_i8.default


def wanted_border(node: torch.fx.Node) -> tuple[Halo, int]:
    """Return the border that the convolutions that read a node need, and what it holds.

    A pad is a border as well; what reads it then reads a view of this node's memory.
    """
    shift = 128 if node.meta["val"].dtype == torch.int8 else 0
    wanted: list[tuple[Halo, int]] = []
    for user in node.users:
        values = arguments(user) if user.op == "call_function" else {}
        if values.get("x") is not node:
            continue
        if user.target in _CONVOLUTIONS:
            wanted.append((reached_by_windows(user), values["x_zero_point"] + shift))
        elif user.target is _TRANSPOSED:
            wanted.append((reached_by_phases(user), values["x_zero_point"] + shift))
        elif user.target is _PAD:
            sides = padded_sides(values["pad"], 4) or NO_HALO
            wanted.append((sides, int(values["value"]) + shift))
    wanted = [(halo, zero) for halo, zero in wanted if halo != NO_HALO]
    if not wanted:
        return NO_HALO, 0
    zero_point = wanted[0][1]
    halos = [halo for halo, zero in wanted if zero == zero_point]
    top, left, bottom, right = (max(sides) for sides in zip(*halos, strict=True))
    return (top, left, bottom, right), zero_point


def padded_sides(pad: list[int], axes: int) -> Halo | None:
    """Return (top, left, bottom, right) of a pad as torch spells it, if it only widens images."""
    sides = [*map(int, pad), *[0] * (2 * axes - len(pad))]
    if axes != 4 or min(sides) < 0 or any(sides[4:]):
        return None
    return sides[2], sides[0], sides[3], sides[1]


def reached_by_windows(node: torch.fx.Node) -> Halo:
    """Return how far the windows of a convolution reach over the image's edges."""
    values = arguments(node)
    height, width = sizes_of(values["x"])[2:]
    out_height, out_width = sizes_of(node)[2:]
    kernel_height, kernel_width = sizes_of(values["weight"])[2:]
    top, left, _, _ = values["padding"]
    stride, dilation = values["stride"], values["dilation"]
    bottom = (out_height - 1) * stride[0] + (kernel_height - 1) * dilation[0] + 1 - top - height
    right = (out_width - 1) * stride[1] + (kernel_width - 1) * dilation[1] + 1 - left - width
    return top, left, max(bottom, 0), max(right, 0)


def reached_by_phases(node: torch.fx.Node) -> Halo:
    """Return how far those of a transposed convolution's phases reach."""
    sizes = sizes_of(arguments(node)["x"])[2:]
    (top, bottom), (left, right) = [
        (max(-p.start for p in axis), max(p.last - size + 1 for p in axis))
        for axis, size in zip(find_phases(node), sizes, strict=True)
    ]
    return max(top, 0), max(left, 0), max(bottom, 0), max(right, 0)

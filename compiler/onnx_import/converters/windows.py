"""Windows of convolutions and pools: strides, dilations, pads in all the ways of writing them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..call import Call
from ..values import Operand

aten = torch.ops.aten
# What no real model pads by; more would only take memory.
MOST_PADDING = 1 << 20


@dataclass(frozen=True)
class Windows:
    """How windows lie on the spatial axes; one entry an axis.

    Attributes:
        kernel: Sizes of the window.
        strides: Steps between windows.
        dilations: Steps inside a window.
        begins: Padding in front.
        ends: Padding behind.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begins: list[int]
    ends: list[int]

    def two_dimensional(self) -> Windows:
        """Return windows on one axis as such on two, the first of size one."""
        return Windows(
            [1, *self.kernel],
            [1, *self.strides],
            [1, *self.dilations],
            [0, *self.begins],
            [0, *self.ends],
        )

    def reach(self, axis: int) -> int:
        """Return how many positions a window spans."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1


def windows(call: Call, x: Operand, kernel: list[int]) -> Windows:
    """Read strides, dilations, pads and auto_pad of a node whose input is [n, c, *spatial]."""
    rank = len(kernel)
    strides = call.integers("strides", [1] * rank)
    dilations = call.integers("dilations", [1] * rank)
    pads = call.integers("pads", [0] * 2 * rank)
    if not len(strides) == len(dilations) == len(pads) // 2 == rank == call.rank(x) - 2:
        raise call.refuse(f"has strides, dilations or pads that don't fit {rank} axes")
    if min([*strides, *dilations, *kernel]) < 1:
        raise call.refuse("has a stride, dilation or kernel below 1")
    if max(map(abs, pads)) > MOST_PADDING:
        raise call.refuse(f"pads by {max(pads)}")
    auto = call.text("auto_pad", "NOTSET")
    begins, ends = pads[:rank], pads[rank:]
    if auto == "VALID":
        begins, ends = [0] * rank, [0] * rank
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        for axis in range(rank):
            size = call.fixed(x, axis + 2)
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            total = max(0, (-(-size // strides[axis]) - 1) * strides[axis] + reach - size)
            half = total // 2
            begins[axis] = half if auto == "SAME_UPPER" else total - half
            ends[axis] = total - begins[axis]
    elif auto != "NOTSET":
        raise call.refuse(f"has the unknown auto_pad {auto!r}")
    return Windows(kernel, strides, dilations, begins, ends)


def pad_ends(call: Call, x: Operand, begins: list[int], ends: list[int], value: float) -> Operand:
    """Pad the last axes of a tensor with a number; negative amounts cut off."""
    amounts = [
        amount
        for begin, end in zip(reversed(begins), reversed(ends), strict=True)
        for amount in (begin, end)
    ]
    return call.emit(aten.constant_pad_nd.default, x, amounts, value) if any(amounts) else x


def crop_or_pad(call: Call, x: Operand, begins: list[int], ends: list[int]) -> Operand:
    """Cut off (negative) or add zeros (positive) at the ends of the last axes."""
    first = call.rank(x) - len(begins)
    for axis, (begin, end) in enumerate(zip(begins, ends, strict=True), first):
        if begin < 0 or end < 0:
            size = call.fixed(x, axis)
            x = call.emit(aten.slice.Tensor, x, axis, max(0, -begin), size + min(0, end), 1)
    return pad_ends(call, x, [max(0, b) for b in begins], [max(0, e) for e in ends], 0.0)

"""conv_transpose2d_i8: one ordinary convolution for each phase of the output.

Output row `oy` is made of the kernel rows `ky` for which `oy + padding - ky * dilation` is a
multiple of the stride; the quotient is the input row. So all output rows with one remainder (a
phase) use the same taps, and neighbours among them read neighbouring input rows: an ordinary
convolution with stride 1, whose results are written `stride` rows apart. No zeros are inserted and
nothing is multiplied in vain.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import torch.fx

from planish.ir.ops import arguments

from ..choosing import emit_layer
from ..layer import Layer
from ..layout import Halo, Layout
from ..lowering import Lowering
from ..value import Value


@dataclass(frozen=True)
class Phase:
    """The rows (or columns) of the output with one remainder.

    Attributes:
        first: The first of them.
        count: How many there are.
        taps: The kernel's rows that they use, in the order of the input rows.
        start: The input row that the first tap of the first output reads.
        dilation: Input rows between two taps.
    """

    first: int
    count: int
    taps: tuple[int, ...]
    start: int
    dilation: int

    @property
    def last(self) -> int:
        """The last input row that is read."""
        return self.start + self.count - 1 + max(len(self.taps) - 1, 0) * self.dilation


def phases(kernel: int, stride: int, padding: int, dilation: int, size: int) -> list[Phase]:
    """Return the phases of one axis of a transposed convolution with `size` outputs."""
    found: list[Phase] = []
    for first in range(min(stride, size)):
        taps = [k for k in range(kernel) if (first + padding - k * dilation) % stride == 0]
        taps.reverse()
        start = (first + padding - taps[0] * dilation) // stride if taps else 0
        count = -(-(size - first) // stride)
        found.append(Phase(first, count, tuple(taps), start, dilation // gcd(dilation, stride)))
    return found


def _axes(lowering: Lowering, node: torch.fx.Node) -> list[list[Phase]]:
    values = arguments(node)
    kernel = lowering.shape(values["weight"])[2:]
    return [
        phases(
            kernel[axis],
            int(values["stride"][axis]),
            int(values["padding"][axis]),
            int(values["dilation"][axis]),
            lowering.shape(node)[2 + axis],
        )
        for axis in (0, 1)
    ]


def reached_border(lowering: Lowering, node: torch.fx.Node) -> Halo:
    """Return how far the phases' windows reach over the image's edges."""
    sizes = lowering.shape(arguments(node)["x"])[2:]
    (top, bottom), (left, right) = [
        (max(-p.start for p in axis), max(p.last - size + 1 for p in axis))
        for axis, size in zip(_axes(lowering, node), sizes, strict=True)
    ]
    return max(top, 0), max(left, 0), max(bottom, 0), max(right, 0)


def transposed_convolution(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower conv_transpose2d_i8."""
    values = arguments(node)
    if 0 in lowering.shape(node):
        lowering.new_integer(node)
        return
    shift = 128 if str(values["x"].meta["val"].dtype) == "torch.int8" else 0
    x_zero_point = int(values["x_zero_point"]) + shift
    halo = reached_border(lowering, node)
    x = lowering.padded(values["x"], halo, x_zero_point)
    y = lowering.new_integer(node)
    zero_point = int(values["y_zero_point"])
    lo, hi = lowering.fusion.bounds(node)
    weight, multiplier = lowering.stored(values["weight"]), lowering.stored(values["multiplier"])
    assert weight is not None
    assert multiplier is not None
    all_rows, all_columns = _axes(lowering, node)
    for rows in all_rows:
        for columns in all_columns:
            layer = Layer(
                x=x,
                y=_every(y, rows, columns, len(all_rows), len(all_columns)),
                weight=weight,
                bias=lowering.stored(values["bias"]),
                multiplier=multiplier,
                kernel=(max(len(rows.taps), 1), max(len(columns.taps), 1)),
                stride=(1, 1),
                dilation=(rows.dilation, columns.dilation),
                origin=(-rows.start, -columns.start),
                groups=int(values["groups"]),
                x_zero_point=x_zero_point,
                lo=lo - zero_point,
                hi=hi - zero_point,
                zero_point=zero_point + y.shift,
                residual=None,
                label=lowering.label(node),
                phase=(rows.taps, columns.taps),
            )
            emit_layer(layer, lowering.plan)


def _every(value: Value, rows: Phase, columns: Phase, down: int, right: int) -> Value:
    """Return the pixels of a value that belong to a phase, as a value of its own."""
    layout = value.layout
    images, channels, _, _ = layout.shape
    image, channel, row, pixel = layout.steps
    seen = Layout(
        (images, channels, rows.count, columns.count),
        (image, channel, row * down, pixel * right),
        layout.base + rows.first * row + columns.first * pixel,
        layout.size,
        layout.dtype,
    )
    return value.view(value.name, seen)

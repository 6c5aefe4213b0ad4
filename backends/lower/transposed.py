"""conv_transpose2d_i8: one ordinary convolution for each phase of the output (see `phases`).

It has stride 1, and its results are written `stride` rows apart. No zeros are inserted and nothing
is multiplied in vain.
"""

from __future__ import annotations

import torch.fx

from planish.ir.ops import arguments

from ..borders import reached_by_phases
from ..choosing import emit_layer
from ..layer import Layer
from ..layout import Layout
from ..lowering import Lowering
from ..phases import Phase, find_phases
from ..value import Value


def transposed_convolution(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower conv_transpose2d_i8."""
    values = arguments(node)
    if 0 in lowering.shape(node):
        lowering.new_integer(node)
        return
    shift = 128 if str(values["x"].meta["val"].dtype) == "torch.int8" else 0
    x_zero_point = int(values["x_zero_point"]) + shift
    halo = reached_by_phases(node)
    x = lowering.padded(values["x"], halo, x_zero_point)
    y = lowering.new_integer(node)
    zero_point = int(values["y_zero_point"])
    lo, hi = lowering.fusion.bounds(node)
    weight, multiplier = lowering.stored(values["weight"]), lowering.stored(values["multiplier"])
    assert weight is not None
    assert multiplier is not None
    all_rows, all_columns = find_phases(node)
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

"""Emits interpolations and paddings. What torch reads for an output position is asked of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.integer import quantize
from planish.ir.integer.resampling import RESIZE_BITS

from .emission import Emission

_ops, _aten = torch.ops.planish, torch.ops.aten


def resize(e: Emission) -> fx.Node:
    """resize_i8, for bilinear interpolation."""
    values = e.values
    unit = 2.0 ** (-2 * RESIZE_BITS)
    multiplier = float(torch.tensor(e.x.qparams.scale / e.y.scale * unit, dtype=torch.float32))
    tables = [
        e.own_tensor(name, table)
        for axis, names in enumerate((("rows", "row_weights"), ("columns", "column_weights")))
        for name, table in zip(names, _linear_axis(e, values, axis), strict=True)
    ]
    zero_point = e.x.qparams.zero_point
    return e.call(_ops.resize_i8.default, e.x.node, *tables, multiplier, *e.ending(zero_point))


def _linear_axis(e: Emission, values: dict[str, Any], axis: int) -> tuple[torch.Tensor, ...]:
    """Return the two positions and weights, int32 [out, 2], that each output position reads.

    They are read off torch's own answer for the unit vectors, so that its rounding of source
    positions, its align_corners and its scale factors need not be told again.
    """
    size, out = e.size(values["self"], 2 + axis), int(values["output_size"][axis])
    scale = values["scales_h" if axis == 0 else "scales_w"]
    unit_vectors = torch.eye(size).view(1, size, size, 1)
    answer = _aten.upsample_bilinear2d.default(
        unit_vectors, [out, 1], values["align_corners"], scale, None
    )
    weights = answer.view(size, out).T.double()  # [out, size]
    first = (weights > 0).to(torch.int32).argmax(1)
    second = (first + 1).clamp(max=size - 1)
    one = 2**RESIZE_BITS
    share = torch.round(weights.gather(1, first[:, None])[:, 0] * one)
    positions = torch.stack([first, second], 1)
    return positions.to(torch.int32), torch.stack([share, one - share], 1).to(torch.int32)


def upsample_nearest2d(e: Emission) -> fx.Node:
    """Two selections by index, rows and then columns: they keep the scale."""
    values, node = e.values, e.x.node
    for axis in range(2):
        size, out = e.size(values["self"], 2 + axis), int(values["output_size"][axis])
        scale = values["scales_h" if axis == 0 else "scales_w"]
        positions = torch.arange(size, dtype=torch.float32).view(1, 1, size, 1)
        answer = _aten.upsample_nearest2d.default(positions, [out, 1], scale, None)
        index = e.own_tensor("rows" if axis == 0 else "columns", answer.view(out).to(torch.int64))
        node = e.call(_aten.index_select.default, node, 2 + axis, index)
    return node


def pad(e: Emission) -> fx.Node:
    """pad_i8: it keeps the scale, at which the padding's value is quantized."""
    x = e.x.qparams
    value = torch.tensor(float(e.values["value"]))
    integer = int(quantize(value, x.scale, x.zero_point, x.lo, x.hi))
    return e.call(_ops.pad_i8.default, e.x.node, list(e.values["pad"]), integer)

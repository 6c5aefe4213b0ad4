"""Emits pools: averages with the divisor of each window, and maxima."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.integer.pooling import adaptive_windows, pooled_size

from .emission import Emission

_ops = torch.ops.planish


def avg_pool2d(e: Emission) -> fx.Node:
    """avg_pool2d_i8."""
    values = e.values
    sizes = (e.size(values["self"], 2), e.size(values["self"], 3))
    multiplier = _mean_multiplier(e, _window_counts(values, sizes))
    return e.call(
        _ops.avg_pool2d_i8.default,
        *(e.x.node, multiplier, values["kernel_size"], values["stride"], _padding(values)),
        values["ceil_mode"],
        *e.ending(e.x.qparams.zero_point),
    )


def _padding(values: dict[str, Any]) -> list[int]:
    vertical, horizontal = values["padding"]
    return [vertical, horizontal, vertical, horizontal]


def _window_counts(values: dict[str, Any], sizes: tuple[int, int]) -> torch.Tensor:
    """Return torch's divisor of each window of avg_pool2d: float64 [oh, ow]."""
    spans = [_spans(values, axis, sizes[axis]) for axis in range(2)]
    if values["divisor_override"] is not None:
        return torch.full(
            (len(spans[0]), len(spans[1])), values["divisor_override"], dtype=torch.float64
        )
    rows, columns = (torch.tensor(span, dtype=torch.float64) for span in spans)
    return rows[:, None] * columns[None, :]


def _spans(values: dict[str, Any], axis: int, size: int) -> list[int]:
    """Return how many positions along one axis each window's divisor counts."""
    kernel, stride = values["kernel_size"][axis], values["stride"][axis]
    padding = values["padding"][axis]
    count = pooled_size(size, kernel, stride, padding, padding, 1, values["ceil_mode"])
    spans = []
    for index in range(count):
        start = index * stride - padding
        # torch counts padding, but never what ceil_mode adds beyond it.
        end = min(start + kernel, size + padding)
        if not values["count_include_pad"]:
            start, end = max(start, 0), min(end, size)
        spans.append(end - start)
    return spans


def adaptive_avg_pool2d(e: Emission) -> fx.Node:
    """adaptive_avg_pool2d_i8."""
    values = e.values
    windows = [
        [end - start for start, end in adaptive_windows(e.size(values["self"], 2 + i), output)]
        for i, output in enumerate(values["output_size"])
    ]
    rows, columns = (torch.tensor(span, dtype=torch.float64) for span in windows)
    multiplier = _mean_multiplier(e, rows[:, None] * columns[None, :])
    return e.call(
        _ops.adaptive_avg_pool2d_i8.default,
        *(e.x.node, multiplier, values["output_size"]),
        *e.ending(e.x.qparams.zero_point),
    )


def _mean_multiplier(e: Emission, counts: torch.Tensor) -> fx.Node:
    """Store float32 `sx / (sy * count)`, computed in float64."""
    exact = e.x.qparams.scale / (e.y.scale * counts)
    return e.own_tensor("multiplier", exact.to(torch.float32))


def max_pool2d(e: Emission) -> fx.Node:
    """max_pool2d_i8: it keeps the scale."""
    values = e.values
    args = (values["kernel_size"], values["stride"], _padding(values), values["dilation"])
    return e.call(_ops.max_pool2d_i8.default, e.x.node, *args, values["ceil_mode"])

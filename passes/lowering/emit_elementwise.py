"""Emits additions, differences, products and tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from planish.ir.integer import dequantize, fixed_point_add, quantize, requantize_multiplier

from ..quantization.observers import QParams
from .emission import Emission

_ops = torch.ops.planish


def add(e: Emission) -> fx.Node:
    """add_i8."""
    return _sum(e, 1)


def sub(e: Emission) -> fx.Node:
    """add_i8 with a negative second multiplier."""
    return _sum(e, -1)


def _sum(e: Emission, sign: int) -> fx.Node:
    a, b = e.operands
    first, second, shift = fixed_point_add(a.qparams.scale, b.qparams.scale, e.y.scale)
    return e.call(
        _ops.add_i8.default,
        *(a.node, b.node, a.qparams.zero_point, b.qparams.zero_point),
        *(first, sign * second, shift),
        *e.ending(),
    )


def mul(e: Emission) -> fx.Node:
    """mul_i8."""
    a, b = e.operands
    multiplier = float(requantize_multiplier(a.qparams.scale, b.qparams.scale, e.y.scale))
    zero_points = (a.qparams.zero_point, b.qparams.zero_point)
    return e.call(_ops.mul_i8.default, a.node, b.node, multiplier, *e.ending(*zero_points))


def table(e: Emission, root: fx.Node, region: tuple[fx.Node, ...]) -> fx.Node:
    """table_i8: the simulated function of one quantized value, run on each of its integers.

    A function that leaves them all as they are is no operator.

    Args:
        e: `e.x` is the value; `e.node` names the result.
        root: The value that the function reads, in the old graph.
        region: The function's operators in execution order; the last one's result is quantized.
    """
    x = e.x.qparams
    first = 0 if x.dtype == torch.uint8 else -128
    integers = torch.arange(first, first + 256, dtype=torch.int32)
    entries = _entries(integers, x, e.y, root, region, e.bounds)
    used = (integers >= x.lo) & (integers <= x.hi)
    if x.dtype == e.y.dtype and torch.equal(entries[used].int(), integers[used]):
        return e.x.node
    return e.call(_ops.table_i8.default, e.x.node, e.own_tensor("table", entries))


def _entries(
    integers: torch.Tensor,
    x: QParams,
    y: QParams,
    root: fx.Node,
    region: tuple[fx.Node, ...],
    bounds: tuple[int, int],
) -> torch.Tensor:
    real: dict[fx.Node, Any] = {root: dequantize(integers, x.scale, x.zero_point)}
    for node in region:
        args, kwargs = map_arg((node.args, node.kwargs), real.__getitem__)
        assert callable(node.target)
        real[node] = node.target(*args, **kwargs)
    result = real[region[-1]] if region else real[root]
    return quantize(result, y.scale, y.zero_point, *bounds).to(y.dtype)

"""A fake-quantize that no integer operator stands for, written out in float operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments
from planish.ir.origin import get_origin

from ..parameters.weights import along_axis

_aten = torch.ops.aten


def real_fake_quantize(
    graph: Graph, node: fx.Node, x: fx.Node, scale: torch.Tensor, zero_point: torch.Tensor
) -> fx.Node:
    """Emit `(clamp(rne(x / scale) + z, lo, hi) - z) * scale`, for 16 bits or along an axis.

    Args:
        graph: The integer graph under construction.
        node: The fake-quantize, in the old graph.
        x: What it reads, in the new graph.
        scale: float32, [] or [channels].
        zero_point: int32, likewise.
    """
    values = arguments(node)
    axis, dim = values["axis"], node.meta["val"].dim()
    name = get_origin(node).name

    def call(target: Any, *args: Any) -> fx.Node:
        new = graph.fx.create_node("call_function", target, args, name=node.name)
        new.meta["origin"] = get_origin(node)
        return new

    def constant(role: str, value: torch.Tensor) -> Any:
        if axis is None:
            return float(value)
        spread = along_axis(value.float(), axis % dim, dim)
        return graph.fx.get_attr(graph.new_attribute(f"{name}.{role}", spread))

    rounded = call(_aten.round.default, call(_aten.div.Tensor, x, constant("scale", scale)))
    low, high = float(values["lo"]), float(values["hi"])
    if bool(zero_point.any()):
        shift = constant("zero_point", zero_point)
        shifted = call(_aten.add.Tensor, rounded, shift)
        rounded = call(_aten.sub.Tensor, call(_aten.clamp.default, shifted, low, high), shift)
    else:
        rounded = call(_aten.clamp.default, rounded, low, high)
    return call(_aten.mul.Tensor, rounded, constant("scale", scale))

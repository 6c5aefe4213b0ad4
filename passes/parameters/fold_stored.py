"""Computes once, at lowering, what an integer graph computes from stored tensors alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from planish.ir.graph import Graph
from planish.ir.ops import row
from planish.ir.origin import get_origin

from .stored_values import stored_values

# Operators that only repeat what is stored: folding them would store it many times.
_COPIES = ("expand", "repeat")


def fold_stored(graph: Graph) -> None:
    """Replace what depends on stored tensors alone by its value, except at the outputs.

    Positions, relative position biases and masks become one stored integer tensor each.
    """
    found = stored_values(graph)
    values: dict[fx.Node, Any] = {}
    for node in graph.calls:
        if node not in found:
            continue
        known = all(o.op == "get_attr" or o in values for o in node.all_input_nodes)
        folds = row(node).name not in _COPIES and isinstance(node.meta["val"], torch.Tensor)
        if known and folds:
            values[node] = _value(graph, node, values)
        else:
            found.discard(node)
    for node, value in values.items():
        if all(user in found for user in node.users):
            continue
        stored = graph.insert_tensor(f"{get_origin(node).name}.stored", value, node)
        stored.meta["origin"] = get_origin(node)
        node.replace_all_uses_with(stored)
    if values:
        graph.prune_dead().infer()


def _value(graph: Graph, node: fx.Node, values: dict[fx.Node, Any]) -> torch.Tensor:
    def operand(value: fx.Node) -> torch.Tensor:
        return graph.attribute(str(value.target)) if value.op == "get_attr" else values[value]

    args, kwargs = map_arg((node.args, node.kwargs), operand)
    assert callable(node.target)
    with torch.no_grad():
        return node.target(*args, **kwargs).contiguous()

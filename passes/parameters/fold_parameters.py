"""fold_parameters: a weight that is computed from stored tensors becomes a stored tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from planish.ir.graph import Graph
from planish.ir.ops import arguments, has_row, is_overload, row
from planish.ir.origin import get_origin

from .stored_values import stored_values

# Arguments by which layers and norms take stored tensors.
_ROLES = ("weight", "bias", "running_mean", "running_var")


def fold_parameters(graph: Graph) -> int:
    """Store what layers' weights, biases and statistics are computed to; return how many.

    Weight normalization (v * g / |v|) and biases put together from pieces stay as they are in a
    canonical graph, so that the pieces train. To fold or to quantize a layer its weight must be
    one tensor; it goes on training as that.
    """
    computed = stored_values(graph)
    layers = [node for node in graph.calls if node not in computed and _has_parameters(node)]
    known: dict[fx.Node, torch.Tensor] = {}
    for layer in layers:
        values = arguments(layer)
        for role in _ROLES:
            operand = values.get(role)
            if operand in computed:
                _fold(graph, layer, role, operand, known)
    if known:
        graph.prune_dead().infer()
    return len(known)


def _has_parameters(node: fx.Node) -> bool:
    return is_overload(node.target) and has_row(node.target) and "input" in row(node).inputs


def _fold(
    graph: Graph, layer: fx.Node, role: str, operand: fx.Node, known: dict[fx.Node, torch.Tensor]
) -> None:
    if operand not in known:
        known[operand], trainable = _evaluate(graph, operand)
        name = f"{get_origin(layer).name}.{role}"
        stored = graph.insert_tensor(name, known[operand], operand, trainable=trainable)
        operand.replace_all_uses_with(stored)


def _evaluate(graph: Graph, node: fx.Node) -> tuple[torch.Tensor, bool]:
    """Return a value computed from stored tensors, and whether any of them trains."""
    trains: list[bool] = []

    def value(operand: fx.Node) -> Any:
        if operand.op == "get_attr":
            tensor = graph.attribute(str(operand.target))
            trains.append(tensor.requires_grad)
            return tensor.detach()
        args, kwargs = map_arg((operand.args, operand.kwargs), value)
        assert callable(operand.target)
        return operand.target(*args, **kwargs)

    with torch.no_grad():
        return value(node).contiguous(), any(trains)

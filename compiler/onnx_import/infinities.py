"""Infinities stored in a model: fine in a mask in front of a softmax, refused elsewhere."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from planish.ir.errors import OperatorError
from planish.ir.graph import Graph
from planish.ir.origin import get_origin

aten = torch.ops.aten

# What gives the same for an infinity and for the large number that canonical form puts there.
_BOUNDED: tuple[Any, ...] = (
    aten.softmax.int,
    aten.exp.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.eq.Tensor,
    aten.ne.Tensor,
    aten.gt.Tensor,
    aten.ge.Tensor,
    aten.lt.Tensor,
    aten.le.Tensor,
    aten.argmax.default,
    aten.argmin.default,
)


def check_infinities(graph: Graph) -> None:
    """Refuse a graph one of whose outputs may show an infinity that the model stores.

    Raises:
        OperatorError: There is one; names where it is stored.
    """
    waiting = [(node, node) for node in graph.fx.nodes if _is_infinite(graph, node)]
    seen: set[fx.Node] = set()
    while waiting:
        node, source = waiting.pop()
        for user in node.users:
            if user.op == "output":
                raise OperatorError(
                    "a stored infinity reaches an output of the model",
                    where=f"node {get_origin(source).name!r}",
                    cure="infinities are supported as masks in front of a softmax",
                )
            if user.target not in _BOUNDED and user not in seen:
                seen.add(user)
                waiting.append((user, source))


def _is_infinite(graph: Graph, node: fx.Node) -> bool:
    if node.op == "get_attr":
        tensor = graph.attribute(str(node.target))
        return tensor.is_floating_point() and bool(torch.isinf(tensor).any())
    value = node.args[1] if node.target is aten.full.default else None
    return isinstance(value, float) and math.isinf(value)

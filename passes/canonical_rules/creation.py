"""Tensors made of one value, of the open batch's size: a small stored tensor, expanded."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments

from .rewriting import Rewriter, looks_at, tensor_name

aten = torch.ops.aten

# The value that each makes, or the name of the argument that holds it.
_MADE: dict[Any, float | str] = {
    aten.zeros.default: 0.0,
    aten.ones.default: 1.0,
    aten.full.default: "fill_value",
    aten.zeros_like.default: 0.0,
    aten.ones_like.default: 1.0,
    aten.full_like.default: "fill_value",
    aten.new_zeros.default: 0.0,
    aten.new_ones.default: 1.0,
    aten.new_full.default: "fill_value",
    aten.empty.memory_format: 0.0,
    aten.empty_like.default: 0.0,
    aten.new_empty.default: 0.0,
    aten.zero.default: 0.0,
    aten.fill.Scalar: "value",
}


@looks_at(*_MADE)
def spell_filled(graph: Graph, node: fx.Node) -> bool:
    """zeros([N, 4]) -> expand(@zeros [1, 4], [N, 4])."""
    values = arguments(node)
    made: Any = _MADE[node.target]
    value = values[made] if isinstance(made, str) else made
    sizes = graph.shape(node)
    if isinstance(value, fx.Node):
        return False
    spelled = values.get("size")
    rewriter = Rewriter(graph, node)
    if spelled is None:
        like: Any = node.args[0]
        spelled = rewriter.sizes(like)
    small = [1 if size is None else size for size in sizes]
    stored = torch.full(small, value, dtype=graph.dtype(node))
    constant = rewriter.store(tensor_name(node, "value"), stored)
    if None in sizes:
        rewriter.finish(aten.expand.default, constant, list(spelled))
    else:
        rewriter.become(constant)
    return True


@looks_at(aten.copy.default, aten.expand_as.default)
def spell_copy(graph: Graph, node: fx.Node) -> bool:
    """copy(x, y), from x[...] = y, and y.expand_as(x): y, spread over the sizes of x."""
    x, y = node.args[:2] if node.target is aten.copy.default else reversed(node.args[:2])
    assert isinstance(x, fx.Node)
    assert isinstance(y, fx.Node)
    if graph.dtype(x) != graph.dtype(y) and node.target is aten.copy.default:
        return False
    rewriter = Rewriter(graph, node)
    rewriter.finish(aten.expand.default, y, rewriter.sizes(x))
    return True


CREATION_RULES = (spell_filled, spell_copy)

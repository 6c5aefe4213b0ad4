"""Sorting, and what comes first: by the positions of a stable sort."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments

from .rewriting import Rewriter, forward, is_unpacked, looks_at, replace_with

aten = torch.ops.aten


@looks_at(aten.argsort.default)
def spell_argsort(graph: Graph, node: fx.Node) -> bool:
    """argsort -> argsort that keeps the order of equal entries."""
    values = arguments(node)
    places = _places(Rewriter(graph, node), values["self"], values["dim"], values["descending"])
    forward(graph, node, places)
    return True


@looks_at(aten.sort.default, aten.sort.stable, aten.topk.default)
def spell_sort(graph: Graph, node: fx.Node) -> bool:
    """sort, topk -> argsort, gather, and of topk their first entries."""
    if not is_unpacked(node):
        return False
    values = arguments(node)
    x, axis, rewriter = values["self"], values["dim"], Rewriter(graph, node)
    count = values.get("k")
    places = _places(rewriter, x, axis, values.get("descending", values.get("largest", False)))
    if count is not None:
        places = rewriter.call(aten.slice.Tensor, places, axis, 0, count, 1)
    for user in list(node.users):
        if user.args[1] == 1:
            forward(graph, user, places)
        else:
            replace_with(graph, user, aten.gather.default, (x, axis, places))
    graph.fx.erase_node(node)
    return True


def _places(rewriter: Rewriter, x: fx.Node, axis: int, descending: Any) -> fx.Node:
    options = {"stable": True, "dim": axis, "descending": bool(descending)}
    return rewriter.call(aten.argsort.stable, x, options=options)


SORTING_RULES = (spell_argsort, spell_sort)

"""Replacing one node by another that keeps its origin."""

from __future__ import annotations

from typing import Any

from torch import fx

from planish.ir.graph import Graph
from planish.ir.origin import get_origin


def insert_after(graph: Graph, node: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
    """Add a call after `node`, with its origin; its shape is inferred later."""
    with graph.fx.inserting_after(node):
        new = graph.fx.call_function(target, args)
    new.meta["origin"] = get_origin(node)
    return new


def replace_with(graph: Graph, node: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
    """Put a call in the place of `node`, with its origin, and remove `node`."""
    new = insert_after(graph, node, target, args)
    new.meta["val"] = node.meta.get("val")
    node.replace_all_uses_with(new)
    graph.fx.erase_node(node)
    return new

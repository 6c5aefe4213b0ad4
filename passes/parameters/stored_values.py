"""stored_values: the nodes that compute on stored tensors alone, so that lowering folds them."""

from __future__ import annotations

from torch import fx

from planish.ir.graph import Graph


def stored_values(graph: Graph) -> set[fx.Node]:
    """Return the operator nodes whose operands, directly or not, are all stored tensors."""
    found: set[fx.Node] = set()
    for node in graph.calls:
        operands = node.all_input_nodes
        if operands and all(o.op == "get_attr" or o in found for o in operands):
            found.add(node)
    return found

"""In-place operators become functional ones, once, before any other rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.errors import OperatorError
from planish.ir.graph import Graph
from planish.ir.ops import is_overload
from planish.ir.origin import get_origin


def replace_in_place(graph: Graph) -> None:
    """Replace every `op_(x, ...)` by `op(x, ...)`; later readers of x read the new value.

    Raises:
        OperatorError: x is a view of another value, or another value is a view of x, so that the
            write would reach values that the graph does not name.
    """
    for node in graph.calls:
        functional = _functional(node.target)
        if functional is None:
            continue
        written = node.args[0]
        assert isinstance(written, fx.Node)
        _check_no_view(node, written)
        order = {other: index for index, other in enumerate(graph.fx.nodes)}
        node.target = functional
        later = [user for user in written.users if order[user] > order[node]]
        for user in later:
            user.replace_input_with(written, node)


def _functional(target: Any) -> Any:
    """Return the functional overload of an in-place one, or None if it isn't in place."""
    if not is_overload(target) or not target._schema.is_mutable:
        return None
    name = target._schema.name.split("::")[1]
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    return getattr(packet, target._overloadname, None)


def _check_no_view(node: fx.Node, written: fx.Node) -> None:
    relatives = [written, *(user for user in written.users if user is not node)]
    for relative in relatives:
        if relative.op == "call_function" and _makes_view(relative.target):
            raise OperatorError(
                f"in-place {node.target} on a view ({relative.name})",
                where=str(get_origin(node)),
                cure="use the functional form in the model (torch.relu instead of relu_)",
            )


def _makes_view(target: Any) -> bool:
    """Whether an operator's result shares memory with its first argument."""
    if not is_overload(target) or target._schema.is_mutable:
        return False
    first = target._schema.arguments[0] if target._schema.arguments else None
    return first is not None and first.alias_info is not None

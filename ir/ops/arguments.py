"""Reading and writing a node's arguments by the names of its operator's schema."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx


def arguments(node: fx.Node) -> dict[str, Any]:
    """Return every argument of an operator node by schema name, defaults filled in."""
    if node.target is operator.getitem:  # of an operator with several results; it has no schema
        return {"self": node.args[0], "index": node.args[1]}
    assert isinstance(node.target, torch._ops.OpOverload), node.target
    values: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if position < len(node.args):
            values[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            values[argument.name] = node.kwargs[argument.name]
        else:
            values[argument.name] = argument.default_value
    return values


def set_argument(node: fx.Node, name: str, value: Any) -> None:
    """Set one argument of an operator node by its schema name."""
    assert isinstance(node.target, torch._ops.OpOverload), node.target
    schema = node.target._schema.arguments
    position = next(i for i, argument in enumerate(schema) if argument.name == name)
    if position < len(node.args):
        node.update_arg(position, value)
        return
    known = arguments(node)
    if schema[position].kwarg_only:
        node.update_kwarg(name, value)
        return
    filler = tuple(known[argument.name] for argument in schema[len(node.args) : position])
    node.args = (*node.args, *filler, value)
    node.kwargs = {k: v for k, v in node.kwargs.items() if k != name}


def pair(value: Any) -> tuple[int, int]:
    """Spell a one- or two-entry size (stride, kernel, padding) as two entries."""
    if isinstance(value, int):
        return value, value
    first, *rest = value
    return int(first), int(rest[0]) if rest else int(first)


def weight_shape(node: fx.Node) -> tuple[int, ...]:
    """Return the static shape of a node's "weight" argument."""
    return tuple(int(size) for size in arguments(node)["weight"].meta["val"].shape)


def stored(value: Any) -> str | None:
    """Return the dotted name of the stored tensor that an argument refers to, or None."""
    if isinstance(value, fx.Node) and value.op == "get_attr":
        return str(value.target)
    return None

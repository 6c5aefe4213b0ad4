"""The operator table: one row an operator, read by every part that needs its meaning."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from . import elementwise, floating, layers, movement, quantized, reduction, spatial, unary
from .arguments import arguments, pair, set_argument, stored, weight_shape
from .row import (
    Channels,
    OperatorRow,
    Quantization,
    has_row,
    is_overload,
    node_macs,
    quantization,
    register,
    row,
    rows,
)

_MODULES = (layers, elementwise, unary, reduction, spatial, movement, floating, quantized)
for _module in _MODULES:
    for _row in _module.ROWS:
        register(_row)


def follows_mode(node: fx.Node) -> bool:
    """Whether train() and eval() change what this node computes; never where it is frozen.

    A node is frozen by `node.meta["frozen"] = True`: a teacher's batch norm keeps to its running
    statistics while the student trains in the same graph. Copies and saved graphs keep the mark.
    """
    if node.meta.get("frozen"):
        return False
    return has_row(node.target) and row(node).follows_mode is not None


def is_training(node: fx.Node) -> bool:
    """Whether a node that follows the mode is in training mode."""
    flag = row(node).follows_mode
    assert flag is not None, node
    return bool(arguments(node)[flag])


def set_training(node: fx.Node, training: bool) -> bool:
    """Set the flag of a node that follows the mode; return whether it changed."""
    flag = row(node).follows_mode
    assert flag is not None, node
    if is_training(node) == training:
        return False
    set_argument(node, flag, training)
    return True


def activations(node: fx.Node) -> list[fx.Node]:
    """Return the nodes that a call reads as activations, in the order of its row's inputs."""
    values: dict[str, Any] = arguments(node)
    found: list[fx.Node] = []
    for name in row(node).inputs:
        value = values[name]
        items = value if isinstance(value, list | tuple) else [value]
        found += [item for item in items if isinstance(item, fx.Node)]
    return found


def is_entrance(node: fx.Node) -> bool:
    """Whether a node turns whole numbers or truth values into floats: data comes in, as it is.

    A mask of booleans enters the graph there; like quantize, it computes nothing.
    """
    if not has_row(node.target) or row(node).name != "cast":
        return False
    source = activations(node)[0].meta["val"]
    return isinstance(source, torch.Tensor) and not source.dtype.is_floating_point


__all__ = [
    "Channels",
    "OperatorRow",
    "Quantization",
    "activations",
    "arguments",
    "follows_mode",
    "has_row",
    "is_entrance",
    "is_overload",
    "is_training",
    "node_macs",
    "pair",
    "quantization",
    "register",
    "row",
    "rows",
    "set_argument",
    "set_training",
    "stored",
    "weight_shape",
]

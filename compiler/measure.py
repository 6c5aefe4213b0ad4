"""What a graph weighs: parameters, bytes, multiply-accumulates, layer by layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from planish.ir.ops import arguments, has_row, node_macs
from planish.ir.printer import operator_label

if TYPE_CHECKING:
    from planish.ir.graph import Graph


@dataclass(frozen=True)
class Layer:
    """One layer with a weight.

    Attributes:
        name: Its origin: "layers.3.conv1".
        operator: "conv2d".
        macs: Multiply-accumulates for one sample.
        channels: Output channels or features.
    """

    name: str
    operator: str
    macs: int
    channels: int

    def to_json(self) -> dict[str, Any]:
        """Return the layer as plain JSON values."""
        return asdict(self)


def macs(graph: Graph) -> int:
    """Multiply-accumulates of the whole graph for one sample."""
    return sum(node_macs(node) for node in graph.calls)


def parameters(graph: Graph) -> int:
    """Entries of weights and biases; neither statistics nor scales count."""
    names = {name for name, tensor in graph.attributes.items() if tensor.requires_grad}
    for node in graph.calls:
        if not has_row(node.target):
            continue
        values = arguments(node)
        for operand in (values.get(role) for role in ("weight", "bias")):
            if isinstance(operand, fx.Node) and operand.op == "get_attr":
                names.add(str(operand.target))
    return sum(graph.attribute(name).numel() for name in names)


def stored_bytes(graph: Graph) -> int:
    """Bytes of all stored tensors."""
    return sum(t.numel() * t.element_size() for t in graph.attributes.values())


def layers(graph: Graph) -> list[Layer]:
    """Return the nodes with multiply-accumulates, in execution order."""
    found: list[Layer] = []
    for node in graph.calls:
        count = node_macs(node)
        value = node.meta.get("val")
        if not count or not isinstance(value, torch.Tensor):
            continue
        channels = value.shape[1] if value.ndim == 4 else value.shape[-1]
        found.append(Layer(graph.origin(node).name, operator_label(node), count, int(channels)))
    return found

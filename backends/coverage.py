"""How much of a network runs in int8, and what does not, with the reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch.fx

from planish.ir import Graph, Level
from planish.ir.ops import Quantization, has_row, node_macs, row

from .lowering import is_integer


@dataclass(frozen=True)
class Fallback:
    """A node that runs in float.

    Attributes:
        node: Its origin: the model's layer.
        operator: What it computes.
        reason: Why it isn't integer.
    """

    node: str
    operator: str
    reason: str


def is_float(node: torch.fx.Node) -> bool:
    """Whether a node is computed by a float kernel."""
    return (
        node.op == "call_function"
        and isinstance(node.meta.get("val"), torch.Tensor | tuple | list)
        and not is_integer(node)
    )


def _reason(graph: Graph, node: torch.fx.Node) -> str:
    if graph.level < Level.INTEGER:
        return f"the graph is {graph.level.label}: float"
    if not has_row(node.target):
        return "no row in the operator table: float only"
    if row(node).quantization is Quantization.FLOAT:
        return "no integer formula: float only"
    return "left in float by lower-to-integer"


def measure_coverage(graph: Graph) -> dict[str, Any]:
    """Return `int8_macs`, `macs` (of one sample), `int8_mac_coverage` and `fallbacks`."""
    macs = {node: node_macs(node) for node in graph.calls}
    integer = sum(count for node, count in macs.items() if is_integer(node))
    total = sum(macs.values())
    fallbacks = [
        Fallback(
            graph.origin(node).name or node.name,
            row(node).name if has_row(node.target) else str(node.target),
            _reason(graph, node),
        )
        for node in graph.calls
        if is_float(node)
    ]
    share = integer / total if total else float(not fallbacks)
    return {
        "int8_macs": integer,
        "macs": total,
        "int8_mac_coverage": share,
        "fallbacks": [asdict(fallback) for fallback in fallbacks],
    }

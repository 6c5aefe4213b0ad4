"""What there is to know about a graph, as plain JSON values."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import has_row, row
from planish.ir.printer import operator_label
from planish.ir.signature import dtype_label

from ..measure import layers, macs, parameters, stored_bytes
from ..outlook import integer_outlook


def summarize(graph: Graph, target: str | None = None) -> dict[str, Any]:
    """Return a graph's inputs, outputs, operators, size, layers and int8 coverage on a target."""
    coverage = integer_outlook(graph, target).to_json()
    operators = Counter(_operator(node) for node in graph.calls)
    known = graph.output_names or []
    names = known if len(known) == len(graph.outputs) else [node.name for node in graph.outputs]
    return {
        "level": graph.level.label,
        "inputs": [_tensor(s.name, s.shape, dtype_label(s.dtype)) for s in graph.inputs],
        "outputs": [
            _tensor(name, graph.shape(node), dtype_label(graph.dtype(node)))
            for name, node in zip(names, graph.outputs, strict=True)
        ],
        "operators": dict(operators.most_common()),
        "parameters": parameters(graph),
        "macs": macs(graph),
        "bytes": stored_bytes(graph),
        "layers": [layer.to_json() for layer in layers(graph)],
        "int8_macs": coverage["int8_macs"],
        "int8_mac_coverage": coverage["int8_mac_coverage"],
        "fallbacks": coverage["fallbacks"],
        "history": [entry.to_json() for entry in graph.history],
    }


def _operator(node: fx.Node) -> str:
    """Return the operator's name in the table; of one without a row, torch's."""
    return row(node).name if has_row(node.target) else operator_label(node)


def _tensor(name: str, shape: tuple[int | None, ...], dtype: str) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "dtype": dtype}

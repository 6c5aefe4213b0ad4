"""int8_coverage: how much of a graph computes in int8, and why the rest doesn't."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from .level import Level
from .ops import Quantization, has_row, is_entrance, is_overload, node_macs, quantization, row
from .printer import operator_label

if TYPE_CHECKING:
    from .graph import Graph

_BYTES = (torch.uint8, torch.int8)
# Sums of int8 products in int32; only their result is a real number.
_REAL_RESULTS = ("conv2d_dq", "linear_dq", "matmul_dq")
_QUANTIZING = ("insert-qdq", "lower-to-integer")


@dataclass(frozen=True)
class Fallback:
    """An operator that computes in float.

    Attributes:
        node: Its origin name.
        operator: What it is: "softmax".
        reason: Why it is no integer operator.
        macs: Its multiply-accumulates for one sample.
    """

    node: str
    operator: str
    reason: str
    macs: int


@dataclass(frozen=True)
class Coverage:
    """Multiply-accumulates of one sample, in int8 and in all, and what stayed in float."""

    int8_macs: int
    macs: int
    fallbacks: tuple[Fallback, ...]

    @property
    def share(self) -> float:
        """The part of the MACs that is int8, 0..1; of a graph without MACs, of its operators."""
        if self.macs:
            return self.int8_macs / self.macs
        return 0.0 if self.fallbacks else 1.0

    def to_json(self) -> dict[str, Any]:
        """Return `int8_macs`, `macs`, `int8_mac_coverage` and `fallbacks` as plain values."""
        return {
            "int8_macs": self.int8_macs,
            "macs": self.macs,
            "int8_mac_coverage": self.share,
            "fallbacks": [asdict(fallback) for fallback in self.fallbacks],
        }


def int8_coverage(graph: Graph) -> Coverage:
    """Count what computes in int8: of a graph below the integer level, nothing."""
    refused: dict[str, str] = {}
    for entry in graph.history:
        if entry.name in _QUANTIZING:
            for item in entry.refused:
                refused.setdefault(item.node, item.reason)  # the first to refuse knows why
    total = int8 = 0
    fallbacks: list[Fallback] = []
    for node in graph.calls:
        if not isinstance(node.meta.get("val"), torch.Tensor | tuple | list):
            continue  # sizes: no data flows there
        macs = node_macs(node)
        total += macs
        reason = _runs_in_float(graph, node)
        if reason is None:
            int8 += macs
            continue
        origin = graph.origin(node).name
        operator = row(node).name if has_row(node.target) else operator_label(node)
        fallbacks.append(Fallback(origin, operator, refused.get(origin, reason), macs))
    return Coverage(int8, total, tuple(fallbacks))


def _runs_in_float(graph: Graph, node: fx.Node) -> str | None:
    if graph.level < Level.INTEGER:
        return f"the graph is {graph.level.label}: float"
    if has_row(node.target) and row(node).name in ("quantize", "dequantize"):
        return None
    value = node.meta["val"]
    if isinstance(value, torch.Tensor) and value.dtype in _BYTES:
        return None
    if not is_overload(node.target) or not _is_real(value):
        return None
    if not has_row(node.target):
        return "the operator table has no row for it"
    if row(node).name in _REAL_RESULTS or is_entrance(node):
        return None
    if quantization(node) is Quantization.FLOAT:
        return f"{row(node).name} has no integer form"
    return "its inputs or outputs are not quantized"


def _is_real(value: Any) -> bool:
    """Whether a value, or any of several, is of floating point: indices and masks are no float."""
    if isinstance(value, tuple | list):
        return any(_is_real(item) for item in value)
    return isinstance(value, torch.Tensor) and value.dtype.is_floating_point

"""How much of a graph computes in int8, and why the rest doesn't."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from planish.ir.history import HistoryEntry
from planish.ir.level import Level
from planish.ir.ops import Quantization, has_row, is_overload, node_macs, row
from planish.ir.printer import operator_label

if TYPE_CHECKING:
    from planish.ir.graph import Graph

_BYTES = (torch.uint8, torch.int8)


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

    def to_json(self) -> dict[str, Any]:
        """Return the fallback as plain JSON values."""
        return asdict(self)


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


def int8_coverage(graph: Graph) -> Coverage:
    """Count the int8 MACs of an integer graph.

    On a float graph this foretells them from the operator table: what the passes insert-qdq and
    lower-to-integer could make of it.
    """
    judge = _runs_as if graph.level == Level.INTEGER else _would_run_as
    refused = _refusals(graph.history)
    total = int8 = 0
    fallbacks: list[Fallback] = []
    for node in graph.calls:
        if not isinstance(node.meta.get("val"), torch.Tensor):
            continue  # sizes: no data flows there
        macs = node_macs(node)
        total += macs
        reason = judge(graph, node)
        if reason is None:
            int8 += macs
            continue
        origin = graph.origin(node).name
        why = refused.get(origin, reason)
        fallbacks.append(Fallback(origin, operator_label(node), why, macs))
    return Coverage(int8, total, tuple(fallbacks))


def _refusals(history: list[HistoryEntry]) -> dict[str, str]:
    """Return why a layer was left in float, by its origin name.

    The first reason wins: the passes after it only see what became of it.
    """
    relevant = ("fold-batch-norm", "insert-qdq", "lower-to-integer")
    entries = [entry for entry in history if entry.name in relevant]
    reasons: dict[str, str] = {}
    for entry in entries:
        for item in entry.refused:
            reasons.setdefault(item.node, item.reason)
    return reasons


def _runs_as(graph: Graph, node: fx.Node) -> str | None:
    """Say why a node of an integer graph computes in float, or None."""
    if has_row(node.target) and row(node).name in ("quantize", "dequantize"):
        return None
    if graph.dtype(node) in _BYTES or not graph.dtype(node).is_floating_point:
        return None
    return _would_run_as(graph, node) or "its inputs or outputs are not quantized"


def _would_run_as(graph: Graph, node: fx.Node) -> str | None:
    """Say why a node can't become an integer operator, or None."""
    del graph
    if not is_overload(node.target):
        return None
    if not has_row(node.target):
        return "the operator table has no row for it"
    if row(node).quantization is Quantization.FLOAT:
        return "no integer formula for it"
    return None

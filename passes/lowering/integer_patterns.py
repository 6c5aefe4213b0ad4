"""integer_patterns: what each fake-quantize of a quantized graph becomes on the integer level."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import Quantization, activations, arguments, quantization, row, stored

from ..quantization.observers import QParams
from ..quantization.obstacles import obstacle, pads_maxima

fake_quantize = torch.ops.planish.fake_quantize.default
_INF = float("inf")
_COMPUTING = (Quantization.INTEGER, Quantization.TABLE)
# Operators on two values that a table holds as well, where both are made of the same one value.
_POINTWISE = ("add", "sub", "mul", "div")


class Kind(enum.Enum):
    """What stands in front of a fake-quantize.

    QUANTIZE: a float value enters. COMPUTE: an integer operator, with fused clamps. TABLE: a
    function of one quantized value, a change of its scale included. CLAMP: a clamp of a quantized
    value on its own scale. SAME: nothing.
    """

    QUANTIZE = "quantize"
    COMPUTE = "compute"
    TABLE = "table"
    CLAMP = "clamp"
    SAME = "same"


@dataclass(frozen=True)
class Pattern:
    """One fake-quantize and what stands in front of it.

    Attributes:
        kind: What it becomes.
        qparams: Of the result.
        source: The operator (COMPUTE), or the value that is read.
        bounds: Real bounds of the fused clamps, combined.
        covered: The nodes that the pattern replaces when nobody else reads them, in execution
            order; for TABLE, the function.
    """

    kind: Kind
    qparams: QParams
    source: fx.Node
    bounds: tuple[float, float] = (-_INF, _INF)
    covered: tuple[fx.Node, ...] = ()


@dataclass
class Patterns:
    """The patterns of a graph by fake-quantize node, and the parameters of quantized values.

    `roots` gives the one quantized value that a value is a function of, element by element; it is
    filled in execution order.
    """

    by_node: dict[fx.Node, Pattern] = field(default_factory=dict)
    quantized: dict[fx.Node, QParams] = field(default_factory=dict)
    roots: dict[fx.Node, fx.Node] = field(default_factory=dict)


def is_stored_quantizer(node: fx.Node) -> bool:
    """Whether a node fake-quantizes a stored tensor."""
    return node.target is fake_quantize and stored(node.args[0]) is not None


def eight_bits(node: fx.Node) -> bool:
    """Whether a fake-quantize makes values of one scale that a byte holds."""
    values = arguments(node)
    lo, hi = values["lo"], values["hi"]
    return values["axis"] is None and (0 <= lo <= hi <= 255 or -128 <= lo <= hi <= 127)


def integer_patterns(graph: Graph) -> Patterns:
    """Match every fake-quantize, in execution order."""
    found = Patterns()
    for node in graph.calls:
        if node.target is fake_quantize:
            if eight_bits(node):
                found.quantized[node] = read_qparams(graph, node)
                if not is_stored_quantizer(node):
                    found.by_node[node] = _match(graph, node, found)
        elif quantization(node) is Quantization.SAME_SCALE and obstacle(node) is None:
            shared = _shared_qparams(node, found)
            if shared is not None:
                found.quantized[node] = shared
        root = _root(node, found)
        if root is not None:
            found.roots[node] = root
    return found


def read_qparams(graph: Graph, node: fx.Node) -> QParams:
    """Return the parameters of a per-tensor fake-quantize."""
    values = arguments(node)
    return QParams(
        float(graph.attribute(str(values["scale"].target))),
        int(graph.attribute(str(values["zero_point"].target))),
        values["lo"],
        values["hi"],
    )


def represents(qparams: QParams, value: float) -> bool:
    """Whether a real value lies within half a step of what the parameters can express."""
    low, high = ((q - qparams.zero_point) * qparams.scale for q in (qparams.lo, qparams.hi))
    return low - qparams.scale / 2 <= value <= high + qparams.scale / 2


def _shared_qparams(node: fx.Node, found: Patterns) -> QParams | None:
    """A node that moves values is quantized if all that it reads is, with one scale."""
    known = [found.quantized.get(source) for source in activations(node)]
    if not known or any(qparams != known[0] for qparams in known):
        return None
    if row(node).name == "pad" and known[0] is not None and not pads_maxima(node):
        return known[0] if represents(known[0], arguments(node)["value"]) else None
    return known[0]


def _match(graph: Graph, node: fx.Node, found: Patterns) -> Pattern:
    qparams = read_qparams(graph, node)
    value: fx.Node = arguments(node)["x"]
    before = found.quantized.get(value)
    if before is not None:
        return Pattern(Kind.SAME if before == qparams else Kind.TABLE, qparams, value)
    source, bounds, clamps = _through_clamps(value)
    if found.quantized.get(source) == qparams:
        return Pattern(Kind.CLAMP, qparams, source, bounds, clamps)
    root = found.roots.get(value)
    if root is not None:
        return Pattern(Kind.TABLE, qparams, root, covered=_region(value, root, found))
    if computes(source, found):
        return Pattern(Kind.COMPUTE, qparams, source, bounds, (source, *clamps))
    return Pattern(Kind.QUANTIZE, qparams, value)


def _through_clamps(
    value: fx.Node,
) -> tuple[fx.Node, tuple[float, float], tuple[fx.Node, ...]]:
    """Walk back over clamps; return where they start, their combined bounds, and them in order."""
    low, high = -_INF, _INF
    clamps: list[fx.Node] = []
    while value.op == "call_function" and row(value).quantization is Quantization.CLAMP:
        bounds = row(value).bounds
        assert bounds is not None
        inner_low, inner_high = bounds(value)
        # This clamp runs before those already walked: clamp its bounds by theirs.
        low, high = min(max(inner_low, low), high), max(min(inner_high, high), low)
        clamps.append(value)
        value = activations(value)[0]
    return value, (low, high), tuple(reversed(clamps))


def _root(value: fx.Node, found: Patterns) -> fx.Node | None:
    """Return the one quantized value that `value` is a function of, or None."""
    if value in found.quantized:
        return value
    if value.target is fake_quantize or obstacle_of_table(value):
        return None
    roots = {found.roots.get(source) for source in activations(value)}
    return roots.pop() if len(roots) == 1 else None


def _region(value: fx.Node, root: fx.Node, found: Patterns) -> tuple[fx.Node, ...]:
    """Return the operators between `root` and `value`, both included but the root, in order."""
    inside = {value}
    waiting = [value]
    while waiting:
        sources = [s for s in activations(waiting.pop()) if s is not root and s not in inside]
        inside.update(sources)
        waiting += sources
    return tuple(node for node in found.roots if node in inside)


def obstacle_of_table(node: fx.Node) -> bool:
    """Whether a node is no function of single values, or reads a tensor beside its operands."""
    name, kind = row(node).name, quantization(node)
    pointwise = kind in (Quantization.TABLE, Quantization.CLAMP) or name in _POINTWISE
    value: Any = node.meta["val"]
    if not pointwise or not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
        return True
    operands = activations(node)
    return set(node.all_input_nodes) != set(operands) or any(
        stored(operand) is not None or operand.meta["val"].shape != value.shape
        for operand in operands
    )


def computes(node: fx.Node, found: Patterns) -> bool:
    """Whether a node is an operator with an integer form whose operands are all quantized."""
    if node.op != "call_function" or quantization(node) not in _COMPUTING:
        return False
    if any(source not in found.quantized for source in activations(node)):
        return False
    return obstacle(node) is None

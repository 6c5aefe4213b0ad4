"""integer_patterns: what each fake-quantize of a quantized graph becomes on the integer level."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import Quantization, activations, arguments, quantization, row, stored

from .observers import QParams
from .quantization_placement import EMITTED

fake_quantize = torch.ops.planish.fake_quantize.default


class Kind(enum.Enum):
    """What stands in front of a fake-quantize.

    QUANTIZE: a float value enters. COMPUTE: an integer operator, with fused clamps. CLAMP: a
    clamp of a quantized value on its own scale. REQUANTIZE: a change of scale. SAME: nothing.
    """

    QUANTIZE = "quantize"
    COMPUTE = "compute"
    CLAMP = "clamp"
    REQUANTIZE = "requantize"
    SAME = "same"


@dataclass(frozen=True)
class Pattern:
    """One fake-quantize and what stands in front of it.

    Attributes:
        kind: What it becomes.
        qparams: Of the result.
        source: The operator (COMPUTE), or the value that is read.
        bounds: Real bounds of the fused clamps, combined.
        covered: The nodes that the pattern replaces when nobody else reads them.
    """

    kind: Kind
    qparams: QParams
    source: fx.Node
    bounds: tuple[float, float]
    covered: tuple[fx.Node, ...]


@dataclass
class Patterns:
    """The patterns of a graph by fake-quantize node, and the parameters of quantized values."""

    by_node: dict[fx.Node, Pattern] = field(default_factory=dict)
    quantized: dict[fx.Node, QParams] = field(default_factory=dict)


def is_weight_quantizer(node: fx.Node) -> bool:
    """Whether a node fake-quantizes a stored tensor."""
    return node.target is fake_quantize and stored(node.args[0]) is not None


def integer_patterns(graph: Graph) -> Patterns:
    """Match every fake-quantize, in execution order."""
    found = Patterns()
    for node in graph.calls:
        if node.target is fake_quantize:
            if not is_weight_quantizer(node) and arguments(node)["axis"] is None:
                found.by_node[node] = _match(graph, node, found)
                found.quantized[node] = found.by_node[node].qparams
        elif row(node).quantization is Quantization.SAME_SCALE:
            shared = _shared_qparams(node, found)
            if shared is not None:
                found.quantized[node] = shared
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


def _shared_qparams(node: fx.Node, found: Patterns) -> QParams | None:
    """A node that moves values is quantized if all that it reads is, with one scale."""
    known = [found.quantized.get(source) for source in activations(node)]
    if not known or any(qparams != known[0] for qparams in known):
        return None
    return known[0]


def _match(graph: Graph, node: fx.Node, found: Patterns) -> Pattern:
    qparams = read_qparams(graph, node)
    value: fx.Node = arguments(node)["x"]
    source, bounds, clamps = _through_clamps(value)
    if _computes(graph, source, found):
        return Pattern(Kind.COMPUTE, qparams, source, bounds, (source, *clamps))
    for start, limits, covered in ((source, bounds, clamps), (value, (-_INF, _INF), ())):
        before = found.quantized.get(start)
        if before is None:
            continue
        same_scale = Kind.CLAMP if covered else Kind.SAME
        kind = same_scale if before == qparams else Kind.REQUANTIZE
        return Pattern(kind, qparams, start, limits, tuple(covered))
    return Pattern(Kind.QUANTIZE, qparams, value, (-_INF, _INF), ())


_INF = float("inf")


def _through_clamps(value: fx.Node) -> tuple[fx.Node, tuple[float, float], list[fx.Node]]:
    """Walk back over clamps; return where they start and their combined bounds."""
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
    return value, (low, high), clamps


def _computes(graph: Graph, node: fx.Node, found: Patterns) -> bool:
    """Whether a node is an operator with an integer form whose operands are all quantized."""
    if node.op != "call_function" or node.target is fake_quantize:
        return False
    kind = quantization(node)
    if kind is Quantization.INTEGER and row(node).name not in EMITTED:
        return False
    if kind not in (Quantization.INTEGER, Quantization.TABLE):
        return False
    if any(source not in found.quantized for source in activations(node)):
        return False
    values = arguments(node)
    if row(node).name in ("conv2d", "linear"):
        return _has_integer_weight(graph, values["weight"]) and (
            values["bias"] is None or stored(values["bias"]) is not None
        )
    if row(node).name == "add":
        return values["alpha"] == 1 and len(activations(node)) == 2
    return True


def _has_integer_weight(graph: Graph, weight: object) -> bool:
    """Symmetric int8, per tensor or along the output channels."""
    if not isinstance(weight, fx.Node) or not is_weight_quantizer(weight):
        return False
    values = arguments(weight)
    zero_point = graph.attribute(str(values["zero_point"].target))
    symmetric = not bool(zero_point.any())
    return symmetric and values["axis"] in (None, 0) and -128 <= values["lo"] <= values["hi"] <= 127

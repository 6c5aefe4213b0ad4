"""quantization_placement: which values of a canonical graph are quantized, and which share a scale.

Read off the operator table (`Quantization`), in one walk forwards and one backwards:

- the inputs and the result of an INTEGER or TABLE operator are quantized;
- a CLAMP that alone reads such a result fuses: the quantization stands behind it, not between;
- SAME_SCALE operators (and clamps that can't fuse) keep the scale of what they read, so that all
  inputs of a concatenation share one;
- everything else is float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.history import Refused
from planish.ir.ops import Quantization, activations, arguments, quantization, row, stored
from planish.ir.origin import get_origin

aten = torch.ops.aten
# INTEGER operators that passes/integer_emission.py emits so far.
EMITTED = frozenset({"conv2d", "linear", "add", "avg_pool2d", "adaptive_avg_pool2d"})


@dataclass
class Placement:
    """Where fake-quantize nodes belong.

    Attributes:
        points: Values to quantize, in execution order.
        readers: For a value that is made in float: the nodes that read it quantized. A value that
            is not here is read quantized by everyone.
        group: Values of one group share one scale; a point's group is its representative.
        weights: Layers whose weights are quantized.
        refused: Operators that stay in float, with reasons.
    """

    points: list[fx.Node] = field(default_factory=list)
    readers: dict[fx.Node, list[fx.Node]] = field(default_factory=dict)
    group: dict[fx.Node, fx.Node] = field(default_factory=dict)
    weights: list[fx.Node] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def representative(self, node: fx.Node) -> fx.Node:
        """Return the value whose scale `node` shares."""
        while self.group.get(node, node) is not node:
            node = self.group[node]
        return node

    def join(self, first: fx.Node, second: fx.Node) -> None:
        """Let two values share one scale."""
        self.group[self.representative(second)] = self.representative(first)


def quantization_placement(
    graph: Graph, skip: Callable[[fx.Node], bool] = lambda _: False
) -> Placement:
    """Return where to quantize; `skip` names layers that the user wants in float."""
    placement = Placement()
    kinds = {node: _kind(node, skip, placement) for node in graph.calls}
    produced = _produced(graph, kinds)
    demanded = _demanded(graph, kinds)
    for node in graph.nodes:
        kind = kinds.get(node)
        if kind is Quantization.INTEGER and row(node).name in ("conv2d", "linear"):
            placement.weights.append(node)
        if node not in produced and node not in demanded:
            continue
        if kind is Quantization.SAME_SCALE and node in produced | demanded:
            _join_inputs(node, placement)
        elif kind is Quantization.CLAMP and _source(node) in produced | demanded:
            _place_clamp(node, kinds, placement)
        elif kind in (Quantization.INTEGER, Quantization.TABLE):
            if _fused_clamp(node, kinds) is None:
                placement.points.append(node)
        elif node in demanded and _is_value(node):
            placement.points.append(node)
            placement.readers[node] = [
                u for u in node.users if _reads_quantized(u, kinds, demanded)
            ]
    return placement


def _kind(node: fx.Node, skip: Callable[[fx.Node], bool], placement: Placement) -> Quantization:
    """Return what a node becomes; FLOAT with a reason where operands or user say so."""
    kind = quantization(node)
    reason = _obstacle(node, kind)
    if kind in (Quantization.INTEGER, Quantization.TABLE) and skip(node):
        reason = "the user asked to skip it"
    if reason is None:
        return kind
    placement.refused.append(Refused(get_origin(node).name, reason))
    return Quantization.FLOAT


def _obstacle(node: fx.Node, kind: Quantization) -> str | None:
    name = row(node).name
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor):
        return None
    if kind is Quantization.FLOAT:
        return f"{name} has no integer form"
    if value.dtype != torch.float32:
        return f"{name} works on {value.dtype}, not float32"
    if kind is Quantization.INTEGER and name not in EMITTED:
        return f"{name} has no integer form"
    values = arguments(node)
    if name in ("conv2d", "linear"):
        for role in ("weight", "bias"):
            if values[role] is not None and stored(values[role]) is None:
                return f"its {role} is computed, not stored"
    if name == "add":
        if values["alpha"] != 1:
            return f"add with alpha={values['alpha']} has no integer form"
        operands = activations(node)
        if len(operands) < 2 or any(stored(operand) for operand in operands):
            return "add of a constant has no integer form"
    return None


def _source(node: fx.Node) -> fx.Node:
    return activations(node)[0]


def _is_value(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _produced(graph: Graph, kinds: dict[fx.Node, Quantization]) -> set[fx.Node]:
    """Values that integer operators make, directly or through operators that keep the scale."""
    produced: set[fx.Node] = set()
    for node in graph.calls:
        kind = kinds[node]
        if kind in (Quantization.INTEGER, Quantization.TABLE):
            produced.add(node)
        elif kind in (Quantization.SAME_SCALE, Quantization.CLAMP):
            sources = activations(node)
            if sources and all(source in produced for source in sources):
                produced.add(node)
    return produced


def _demanded(graph: Graph, kinds: dict[fx.Node, Quantization]) -> set[fx.Node]:
    """Values that integer operators read, directly or through operators that keep the scale."""
    demanded: set[fx.Node] = set()
    for node in reversed(graph.calls):
        if _reads_quantized(node, kinds, demanded):
            demanded.update(activations(node))
    return demanded


def _reads_quantized(
    node: fx.Node, kinds: dict[fx.Node, Quantization], demanded: set[fx.Node]
) -> bool:
    kind = kinds.get(node)
    if kind in (Quantization.INTEGER, Quantization.TABLE):
        return True
    return kind in (Quantization.SAME_SCALE, Quantization.CLAMP) and node in demanded


def _join_inputs(node: fx.Node, placement: Placement) -> None:
    first, *others = activations(node) or [node]
    for other in (node, *others):
        if other is not first:
            placement.join(first, other)


def _place_clamp(node: fx.Node, kinds: dict[fx.Node, Quantization], placement: Placement) -> None:
    """A clamp that fuses carries its producer's point; another one keeps its input's scale."""
    source = _source(node)
    chain = source
    while kinds.get(chain) is Quantization.CLAMP and _fused_clamp(_source(chain), kinds) is chain:
        chain = _source(chain)
    made_here = kinds.get(chain) in (Quantization.INTEGER, Quantization.TABLE)
    if made_here and _fused_clamp(source, kinds) is node:
        if _fused_clamp(node, kinds) is None:
            placement.points.append(node)
        return
    placement.join(source, node)
    placement.points.append(node)


def _fused_clamp(node: fx.Node, kinds: dict[fx.Node, Quantization]) -> fx.Node | None:
    """Return the clamp that alone reads `node`, or None."""
    readers = list(node.users)
    if len(readers) == 1 and kinds.get(readers[0]) is Quantization.CLAMP:
        return readers[0]
    return None

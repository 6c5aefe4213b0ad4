"""quantization_placement: which values of a canonical graph are quantized, and which share a scale.

Read off the operator table (`Quantization`), in one walk forwards and one backwards:

- the inputs and the result of an INTEGER or TABLE operator are quantized;
- functions of one value that follow each other become one table: nothing is quantized between;
- a CLAMP that alone reads such a result fuses: the quantization stands behind it, not between;
- SAME_SCALE operators (and clamps that can't fuse) keep the scale of what they read, so that all
  inputs of a concatenation share one;
- a stored tensor that such an operator reads, or a value computed from stored tensors alone, is
  quantized like any other value; a layer's weight has scales of its own;
- everything else is float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.history import Refused
from planish.ir.ops import Quantization, activations, arguments, is_entrance, quantization, row
from planish.ir.origin import get_origin

from ..parameters.stored_values import stored_values
from ..parameters.weights import has_weight
from .obstacles import obstacle, pads_maxima

_COMPUTING = (Quantization.INTEGER, Quantization.TABLE)


@dataclass
class Placement:
    """Where fake-quantize nodes belong.

    Attributes:
        points: Values to quantize, in execution order.
        readers: For a value that is made in float: the nodes that read it quantized. A value that
            is not here is read quantized by everyone.
        group: Values of one group share one scale; a point's group is its representative.
        weights: Layers whose weights are quantized.
        watched: Values without a point whose range the scale must cover too: padded ones.
        stored: Operator nodes that compute on stored tensors alone.
        refused: Operators that stay in float, with reasons.
    """

    points: list[fx.Node] = field(default_factory=list)
    readers: dict[fx.Node, list[fx.Node]] = field(default_factory=dict)
    group: dict[fx.Node, fx.Node] = field(default_factory=dict)
    weights: list[fx.Node] = field(default_factory=list)
    watched: list[fx.Node] = field(default_factory=list)
    stored: set[fx.Node] = field(default_factory=set)
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
    placement = Placement(stored=stored_values(graph))
    kinds = {
        node: _kind(node, skip, placement) for node in graph.calls if node not in placement.stored
    }
    quantized = _produced(graph, kinds, placement.stored)
    _add_demanded(graph, kinds, quantized)
    for node in graph.nodes:
        kind = kinds.get(node)
        if kind is Quantization.INTEGER and has_weight(node):
            placement.weights.append(node)
        if node not in quantized:
            continue
        if kind is Quantization.SAME_SCALE:
            _join_inputs(node, placement)
        elif kind is Quantization.CLAMP and _source(node) in quantized:
            _place_clamp(node, kinds, placement)
        elif kind in _COMPUTING:
            if _fused_clamp(node, kinds) is None and not _fuses(node, kinds):
                placement.points.append(node)
        elif _is_value(node):
            placement.points.append(node)
            placement.readers[node] = [
                u for u in node.users if _reads_quantized(u, node, kinds, quantized)
            ]
    return placement


def _kind(node: fx.Node, skip: Callable[[fx.Node], bool], placement: Placement) -> Quantization:
    """Return what a node becomes; FLOAT with a reason where operands or user say so."""
    kind = quantization(node)
    reason = obstacle(node)
    if kind in _COMPUTING and skip(node):
        reason = "the user asked to skip it"
    if reason is None:
        return kind
    if _is_value(node) and not is_entrance(node):
        placement.refused.append(Refused(get_origin(node).name, reason))
    return Quantization.FLOAT


def _source(node: fx.Node) -> fx.Node:
    return activations(node)[0]


def _is_value(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _produced(
    graph: Graph, kinds: dict[fx.Node, Quantization], stored: set[fx.Node]
) -> set[fx.Node]:
    """Values that integer operators make, directly or through operators that keep the scale.

    A stored tensor beside such a value (a class token before the patches) is no obstacle.
    """
    produced: set[fx.Node] = set()
    for node in graph.calls:
        kind = kinds.get(node)
        if kind in _COMPUTING:
            produced.add(node)
        elif kind in (Quantization.SAME_SCALE, Quantization.CLAMP):
            sources = [s for s in activations(node) if s.op != "get_attr" and s not in stored]
            if sources and all(source in produced for source in sources):
                produced.add(node)
    return produced


def _add_demanded(
    graph: Graph, kinds: dict[fx.Node, Quantization], quantized: set[fx.Node]
) -> None:
    """Add what integer operators read, directly or through operators that keep the scale."""
    for node in reversed(graph.calls):
        kind = kinds.get(node)
        keeps = kind in (Quantization.SAME_SCALE, Quantization.CLAMP) and node in quantized
        if kind in _COMPUTING or keeps:
            quantized.update(activations(node))


def _reads_quantized(
    node: fx.Node, value: fx.Node, kinds: dict[fx.Node, Quantization], quantized: set[fx.Node]
) -> bool:
    """Whether a node reads a value as an operand (not as its weight), and as integers."""
    kind = kinds.get(node)
    keeps = kind in (Quantization.SAME_SCALE, Quantization.CLAMP) and node in quantized
    return (kind in _COMPUTING or keeps) and value in activations(node)


def _join_inputs(node: fx.Node, placement: Placement) -> None:
    first, *others = activations(node) or [node]
    for other in (node, *others):
        if other is not first:
            placement.join(first, other)
    if row(node).name == "pad" and arguments(node)["value"] != 0 and not pads_maxima(node):
        placement.watched.append(node)


def _place_clamp(node: fx.Node, kinds: dict[fx.Node, Quantization], placement: Placement) -> None:
    """A clamp that fuses carries its producer's point; another one keeps its input's scale."""
    source = _source(node)
    chain = source
    while kinds.get(chain) is Quantization.CLAMP and _fused_clamp(_source(chain), kinds) is chain:
        chain = _source(chain)
    made_here = kinds.get(chain) in _COMPUTING
    if made_here and _fused_clamp(source, kinds) is node:
        if _fused_clamp(node, kinds) is None:
            placement.points.append(node)
        return
    placement.join(source, node)
    placement.points.append(node)


def _fuses(node: fx.Node, kinds: dict[fx.Node, Quantization]) -> bool:
    """Whether a function of one value is read by another such function alone."""
    chain = [node, *node.users]
    return len(chain) == 2 and all(kinds.get(each) is Quantization.TABLE for each in chain)


def _fused_clamp(node: fx.Node, kinds: dict[fx.Node, Quantization]) -> fx.Node | None:
    """Return the clamp that alone reads `node`, or None."""
    readers = list(node.users)
    if len(readers) == 1 and kinds.get(readers[0]) is Quantization.CLAMP:
        return readers[0]
    return None

"""masked_ranges: the range of attention scores under a mask, without the mask's huge numbers.

A mask adds -100, -1e4 or -3e38 to what softmax shall ignore. A scale that covers such a number
leaves nothing to tell the scores apart. Softmax compares the values of a row with their maximum,
so anything 12 below every possible maximum (exp(-12) = 6e-6) may as well be larger: the ranges of
the mask and of the sum end there.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import Quantization, activations, quantization, row

from .exact_scales import quantized_at
from .observers import Histogram
from .quantization_placement import Placement

# How far below every unmasked score a masked one lies.
_MARGIN = 12.0
# An operand that reaches this far down is a mask; learned biases don't.
_MASKED = -50.0

Range = tuple[float, float]


def masked_ranges(
    graph: Graph, placement: Placement, histograms: Mapping[fx.Node, Histogram]
) -> dict[fx.Node, Range]:
    """Return new ranges of masks and of the sums with them, by scale group."""
    ranges: dict[fx.Node, Range] = {k: (h.low, h.high) for k, h in histograms.items()}
    changed: dict[fx.Node, Range] = {}
    compared = _only_compared(graph)
    for node in graph.calls:
        if row(node).name != "add" or node not in compared or len(activations(node)) != 2:
            continue
        operands = [placement.representative(operand) for operand in activations(node)]
        result = placement.representative(quantized_at(node, placement))
        if not {*operands, result} <= ranges.keys():
            continue
        _mask_low(activations(node), operands, compared, ranges, changed)
        low = sum(ranges[operand][0] for operand in operands)
        if ranges[result][0] < low and any(operand in changed for operand in operands):
            ranges[result] = changed[result] = (low, ranges[result][1])
    return changed


def _mask_low(
    values: list[fx.Node],
    operands: list[fx.Node],
    compared: set[fx.Node],
    ranges: dict[fx.Node, Range],
    changed: dict[fx.Node, Range],
) -> None:
    """Raise the lower end of the operand that is a mask, if one is."""
    mask, other = sorted((0, 1), key=lambda i: ranges[operands[i]][0])
    leader = operands[mask]
    low, high = ranges[leader]
    if values[mask] not in compared or (low > _MASKED and leader not in changed):
        return
    spread = ranges[operands[other]][1] - ranges[operands[other]][0]
    needed = high - spread - _MARGIN
    if leader in changed:  # a mask of several layers: what the widest scores need
        needed = min(needed, low)
    if low < needed or leader in changed:
        ranges[leader] = changed[leader] = (needed, high)


def _only_compared(graph: Graph) -> set[fx.Node]:
    """Values that only softmax reads, directly or through additions and moves."""
    found: set[fx.Node] = set()
    for node in reversed(list(graph.nodes)):
        if node.users and all(_compares(user, found) for user in node.users):
            found.add(node)
    return found


def _compares(user: fx.Node, found: set[fx.Node]) -> bool:
    if user.op != "call_function":
        return False
    if row(user).name == "softmax":
        return True
    passes_on = row(user).name == "add" or quantization(user) is Quantization.SAME_SCALE
    return passes_on and user in found

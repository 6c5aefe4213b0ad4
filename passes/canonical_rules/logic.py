"""Logic on masks, and constants that are only spread over the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import Channels, has_row, is_overload, row

from .rewriting import Rewriter, forward, is_call, looks_at, replace_with, same_shape, tensor_name

aten = torch.ops.aten

# For booleans, for integers.
_OPERATORS: dict[Any, tuple[Any, Any]] = {
    aten.__and__.Tensor: (aten.logical_and.default, aten.bitwise_and.Tensor),
    aten.__or__.Tensor: (aten.logical_or.default, aten.bitwise_or.Tensor),
    aten.__xor__.Tensor: (aten.logical_xor.default, aten.bitwise_xor.Tensor),
    aten.bitwise_and.Tensor: (aten.logical_and.default, aten.bitwise_and.Tensor),
    aten.bitwise_or.Tensor: (aten.logical_or.default, aten.bitwise_or.Tensor),
    aten.bitwise_xor.Tensor: (aten.logical_xor.default, aten.bitwise_xor.Tensor),
    aten.bitwise_not.default: (aten.logical_not.default, aten.bitwise_not.default),
}


@looks_at(*_OPERATORS)
def spell_logic(graph: Graph, node: fx.Node) -> bool:
    """The bitwise operators on booleans -> the logical ones."""
    target = _OPERATORS[node.target][0 if graph.dtype(node) == torch.bool else 1]
    if target is node.target:
        return False
    replace_with(graph, node, target, node.args)
    return True


_CHOICES = (aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)


@looks_at(*_CHOICES)
def spell_where(graph: Graph, node: fx.Node) -> bool:
    """where with numbers -> where of tensors; the numbers become stored scalars."""
    condition, *values = node.args
    rewriter = Rewriter(graph, node)
    dtype = graph.dtype(node)
    tensors = [
        value
        if isinstance(value, fx.Node)
        else rewriter.store(tensor_name(node, "value"), torch.tensor(value, dtype=dtype))
        for value in values
    ]
    rewriter.finish(aten.where.self, condition, *tensors)
    return True


@looks_at(aten.logical_and.default, aten.logical_or.default)
def drop_neutral_logic(graph: Graph, node: fx.Node) -> bool:
    """x and True, x or False -> x."""
    neutral = node.target is aten.logical_and.default
    for x, constant in (node.args, node.args[::-1]):
        assert isinstance(x, fx.Node)
        if _is_all(graph, constant, neutral) and same_shape(x, node):
            if graph.dtype(x) != torch.bool:
                continue
            forward(graph, node, x)
            return True
    return False


def _is_all(graph: Graph, node: Any, value: bool) -> bool:
    """Whether a node is a constant of booleans, perhaps spread, that are all `value`."""
    constant = _spread(node)
    if constant is None or graph.dtype(constant) != torch.bool:
        return False
    return bool((graph.attribute(str(constant.target)) == value).all())


def _spread(node: Any) -> fx.Node | None:
    """Return c where `node` is c, or c expanded, and c stored."""
    if is_call(node, aten.expand.default):
        node = node.args[0]
    return node if isinstance(node, fx.Node) and node.op == "get_attr" else None


def sink_spread(graph: Graph, node: fx.Node) -> bool:
    """f(expand(@c)) -> expand(f(@c)), so that f is computed now, and not for each sample."""
    ties = is_overload(node.target) and has_row(node.target) and row(node).channels is Channels.TIES
    elementwise = ties or node.target in _BOOLEAN
    operands = node.all_input_nodes
    if not elementwise or not operands:
        return False
    wide = [operand for operand in operands if is_call(operand, aten.expand.default)]
    sources = {operand: _spread(operand) for operand in operands}
    if not wide or None in sources.values() or not same_shape(wide[0], node):
        return False
    if any(graph.attribute(str(s.target)).requires_grad for s in sources.values() if s):
        return False
    args = tuple(sources.get(a, a) if isinstance(a, fx.Node) else a for a in node.args)
    small = Rewriter(graph, node).call(node.target, *args)
    replace_with(graph, node, aten.expand.default, (small, wide[0].args[1]))
    return True


_BOOLEAN = (
    aten.to.dtype,
    aten.where.self,
    aten.logical_and.default,
    aten.logical_or.default,
    aten.logical_not.default,
    aten.eq.Scalar,
    aten.ne.Scalar,
    aten.gt.Scalar,
    aten.ge.Scalar,
    aten.lt.Scalar,
    aten.le.Scalar,
)


LOGIC_RULES = (spell_logic, spell_where, drop_neutral_logic, sink_spread)

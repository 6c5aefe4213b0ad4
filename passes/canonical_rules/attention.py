"""Scaled dot-product attention, spelled out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments

from .rewriting import Rewriter, looks_at, rank, replace_with, tensor_name

aten = torch.ops.aten

# What is added to a score that must not count: exp() of it is exactly 0 in float32.
MASKED = -1e30


@looks_at(aten.scaled_dot_product_attention.default)
def spell_attention(graph: Graph, node: fx.Node) -> bool:
    """Attention -> softmax(q * scale @ k.T + mask) @ v; dropout as torch.export left it.

    Source: Vaswani et al. 2017, equation 1.
    """
    values = arguments(node)
    query, key, value = values["query"], values["key"], values["value"]
    width = graph.shape(query)[-1]
    assert width is not None
    scale = values["scale"]
    rewriter = Rewriter(graph, node)
    if values["enable_gqa"]:
        key, value = (_repeat_heads(rewriter, x, query) for x in (key, value))
    scaled = rewriter.call(
        aten.mul.Tensor, query, 1.0 / math.sqrt(width) if scale is None else scale
    )
    order = [*range(rank(key) - 2), rank(key) - 1, rank(key) - 2]
    turned = rewriter.call(aten.permute.default, key, order)
    scores = rewriter.call(aten.matmul.default, scaled, turned)
    mask = _mask(rewriter, values, scores)
    if mask is not None:
        scores = rewriter.call(aten.add.Tensor, scores, mask)
    weights = rewriter.call(aten.softmax.int, scores, rank(scores) - 1)
    if values["dropout_p"] > 0:
        weights = rewriter.call(aten.dropout.default, weights, values["dropout_p"], False)
    rewriter.finish(aten.matmul.default, weights, value)
    return True


def _repeat_heads(rewriter: Rewriter, x: fx.Node, query: fx.Node) -> fx.Node:
    """Give every group of query heads its key or value head: [..., heads, length, width]."""
    have, wanted = (rewriter.graph.shape(t)[-3] for t in (x, query))
    assert have is not None
    assert wanted is not None
    if have == wanted:
        return x
    axis = rank(x) - 3
    return rewriter.call(aten.repeat_interleave.self_int, x, wanted // have, axis)


def _mask(rewriter: Rewriter, values: dict[str, Any], scores: fx.Node) -> fx.Node | None:
    """Return what is added to the scores, or None."""
    if values["is_causal"]:
        rows, columns = rewriter.graph.shape(scores)[-2:]
        assert rows is not None
        assert columns is not None
        allowed = torch.ones(rows, columns, dtype=torch.bool).tril()
        stored = torch.zeros(rows, columns).masked_fill(~allowed, MASKED)
        return rewriter.store(tensor_name(rewriter.node, "mask"), stored)
    mask: fx.Node | None = values["attn_mask"]
    if mask is None or rewriter.graph.dtype(mask) != torch.bool:
        return mask
    return additive_mask(rewriter, mask, scores, allowed=True)


def additive_mask(rewriter: Rewriter, mask: fx.Node, scores: fx.Node, *, allowed: bool) -> fx.Node:
    """Turn a mask into 0 where a score counts and a large negative number elsewhere.

    `allowed` is what True means: that the score counts, or that it must not.
    """
    dtype = rewriter.graph.dtype(scores)
    numbers = rewriter.call(aten.to.dtype, mask, dtype)
    if allowed:
        numbers = rewriter.call(aten.sub.Tensor, numbers, 1.0)
    return rewriter.call(aten.mul.Tensor, numbers, -MASKED if allowed else MASKED)


@looks_at(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def spell_masked_fill(graph: Graph, node: fx.Node) -> bool:
    """A mask in front of a softmax -> add; another stored mask -> keep and fill; else where."""
    x, mask, value = node.args
    assert isinstance(x, fx.Node)
    assert isinstance(mask, fx.Node)
    if isinstance(value, fx.Node):
        if value.op != "get_attr" or graph.attribute(str(value.target)).requires_grad:
            return False
        value = graph.attribute(str(value.target)).item()
    assert isinstance(value, int | float)
    if not graph.dtype(x).is_floating_point:
        return False
    rewriter = Rewriter(graph, node)
    only_softmax = all(_reaches_softmax(user) for user in node.users) and bool(node.users)
    if value <= -1e4 and only_softmax:
        rewriter.finish(aten.add.Tensor, x, additive_mask(rewriter, mask, x, allowed=False))
        return True
    value = max(min(float(value), -MASKED), MASKED)
    filled = rewriter.call(aten.to.dtype, mask, graph.dtype(x))
    kept = rewriter.call(aten.add.Tensor, rewriter.call(aten.neg.default, filled), 1.0)
    kept = rewriter.call(aten.mul.Tensor, x, kept)
    if value == 0:
        rewriter.become(kept)
    else:
        rewriter.finish(aten.add.Tensor, kept, rewriter.call(aten.mul.Tensor, filled, value))
    return True


_PASSES_ON = (
    aten.reshape.default,
    aten.view.default,
    aten.add.Tensor,
    aten.masked_fill.Scalar,
    aten.masked_fill.Tensor,
    aten.dropout.default,
)


def _reaches_softmax(node: fx.Node) -> bool:
    """Whether a value goes into a softmax and nowhere else, by way of views and masks."""
    if node.target in (aten.softmax.int, aten._softmax.default):
        return True
    if node.target is aten.scaled_dot_product_attention.default:
        return True  # a mask of -inf makes no sense as query, key or value
    return (
        node.target in _PASSES_ON
        and bool(node.users)
        and all(_reaches_softmax(user) for user in node.users)
    )


_PLAIN: dict[Any, Any] = {
    aten._softmax.default: aten.softmax.int,
    aten._log_softmax.default: aten.log_softmax.int,
}


@looks_at(*_PLAIN, *_PLAIN.values())
def write_softmax(graph: Graph, node: fx.Node) -> bool:
    """The axis counts from 0; a dtype that changes nothing goes."""
    x, axis = node.args[:2]
    assert isinstance(x, fx.Node)
    assert isinstance(axis, int)
    if graph.dtype(x) != graph.dtype(node):
        return False
    plain = (x, axis % max(rank(x), 1))
    target = _PLAIN.get(node.target, node.target)
    if tuple(node.args) == plain and not node.kwargs and target is node.target:
        return False
    replace_with(graph, node, target, plain)
    return True


ATTENTION_RULES = (spell_attention, spell_masked_fill, write_softmax)

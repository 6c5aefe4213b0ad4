"""Functions that others say in full: by a factor, a comparison, a root."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments

from .rewriting import Rewriter, is_unpacked, looks_at, rank, replace_with, tensor_name

aten = torch.ops.aten


@looks_at(aten.exp2.default, aten.log2.default, aten.erfc.default, aten.hypot.default)
def spell_function(graph: Graph, node: fx.Node) -> bool:
    """exp2 -> exp, log2 -> log, erfc -> 1 - erf, hypot -> sqrt(x * x + y * y)."""
    x: Any = node.args[0]
    rewriter = Rewriter(graph, node)
    if not graph.dtype(x).is_floating_point:
        return False
    if node.target is aten.exp2.default:
        rewriter.finish(aten.exp.default, rewriter.call(aten.mul.Tensor, x, math.log(2)))
    elif node.target is aten.log2.default:
        rewriter.finish(aten.mul.Tensor, rewriter.call(aten.log.default, x), 1 / math.log(2))
    elif node.target is aten.erfc.default:
        rewriter.finish(aten.rsub.Scalar, rewriter.call(aten.erf.default, x), 1.0)
    else:
        squares = [rewriter.call(aten.mul.Tensor, side, side) for side in node.args]
        rewriter.finish(aten.sqrt.default, rewriter.call(aten.add.Tensor, *squares))
    return True


@looks_at(aten.isnan.default)
def spell_isnan(graph: Graph, node: fx.Node) -> bool:
    """Only NaN is unlike itself."""
    replace_with(graph, node, aten.ne.Tensor, (node.args[0], node.args[0]))
    return True


# With a number, and with a tensor.
_WITH_NUMBERS: dict[Any, Any] = {
    aten.fmod.Scalar: aten.fmod.Tensor,
    aten.bitwise_and.Scalar: aten.bitwise_and.Tensor,
    aten.bitwise_or.Scalar: aten.bitwise_or.Tensor,
    aten.bitwise_xor.Scalar: aten.bitwise_xor.Tensor,
    aten.__and__.Scalar: aten.bitwise_and.Tensor,
    aten.__or__.Scalar: aten.bitwise_or.Tensor,
    aten.__xor__.Scalar: aten.bitwise_xor.Tensor,
    aten.scatter.value: aten.scatter.src,
}


@looks_at(*_WITH_NUMBERS)
def store_number(graph: Graph, node: fx.Node) -> bool:
    """fmod(x, 3) -> fmod(x, @three): a number becomes a stored tensor."""
    x, *rest, number = node.args
    assert isinstance(x, fx.Node)
    if isinstance(number, fx.Node):
        return False
    rewriter = Rewriter(graph, node)
    value = torch.tensor(number, dtype=graph.dtype(x))
    stored = rewriter.store(tensor_name(node, "value"), value)
    if node.target is aten.scatter.value:
        index: Any = rest[1]
        stored = rewriter.call(aten.expand.default, stored, rewriter.sizes(index))
    rewriter.finish(_WITH_NUMBERS[node.target], x, *rest, stored)
    return True


@looks_at(aten.aminmax.default)
def spell_aminmax(graph: Graph, node: fx.Node) -> bool:
    """aminmax -> amin, amax."""
    if not is_unpacked(node):
        return False
    values = arguments(node)
    x, axis = values["self"], values["dim"]
    axes = list(range(rank(x))) if axis is None else [axis]
    for user in list(node.users):
        target = aten.amax.default if user.args[1] else aten.amin.default
        replace_with(graph, user, target, (x, axes, values["keepdim"]))
    graph.fx.erase_node(node)
    return True


@looks_at(aten.cosine_similarity.default)
def spell_cosine(graph: Graph, node: fx.Node) -> bool:
    """cosine_similarity -> sum(x / max(|x|, eps) * y / max(|y|, eps))."""
    values = arguments(node)
    axis, rewriter = [values["dim"]], Rewriter(graph, node)

    def unit(x: fx.Node) -> fx.Node:
        length = rewriter.call(aten.linalg_vector_norm.default, x, 2, axis, True)
        bounded = rewriter.call(aten.clamp.default, length, values["eps"], None)
        return rewriter.call(aten.div.Tensor, x, bounded)

    product = rewriter.call(aten.mul.Tensor, unit(values["x1"]), unit(values["x2"]))
    rewriter.finish(aten.sum.dim_IntList, product, axis, False)
    return True


@looks_at(aten.scatter_add.default, aten.index_add.default)
def spell_scattered_sum(graph: Graph, node: fx.Node) -> bool:
    """scatter_add -> scatter_reduce that sums; index_add too, its positions spread out."""
    values = arguments(node)
    x, axis, index = values["self"], values["dim"], values["index"]
    source: Any = values.get("src", values.get("source"))
    rewriter = Rewriter(graph, node)
    if node.target is aten.index_add.default:
        shape = graph.shape(source)
        if None in shape or rank(source) != rank(x):
            return False
        if values["alpha"] != 1:
            source = rewriter.call(aten.mul.Tensor, source, values["alpha"])
        tall = [-1 if a == axis % rank(x) else 1 for a in range(rank(x))]
        index = rewriter.call(aten.reshape.default, index, tall)
        index = rewriter.call(aten.expand.default, index, list(shape))
    rewriter.finish(aten.scatter_reduce.two, x, axis, index, source, "sum")
    return True


FUNCTION_RULES = (
    spell_function,
    spell_isnan,
    store_number,
    spell_aminmax,
    spell_cosine,
    spell_scattered_sum,
)

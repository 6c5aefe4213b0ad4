"""Elementwise arithmetic and reductions, each spelled one way."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments

from .rewriting import (
    Rewriter,
    forward,
    is_call,
    is_unpacked,
    looks_at,
    rank,
    replace_with,
    same_shape,
)

aten = torch.ops.aten

_PAIRS = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)
_SCALARS: dict[Any, Any] = {
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Scalar: aten.div.Tensor,
    aten.true_divide.Tensor: aten.div.Tensor,
    aten.true_divide.Scalar: aten.div.Tensor,
    aten.multiply.Tensor: aten.mul.Tensor,
    aten.multiply.Scalar: aten.mul.Tensor,
    aten.subtract.Tensor: aten.sub.Tensor,
    aten.subtract.Scalar: aten.sub.Tensor,
    aten.divide.Tensor: aten.div.Tensor,
    aten.divide.Scalar: aten.div.Tensor,
}


@looks_at(*_SCALARS)
def spell_scalar(graph: Graph, node: fx.Node) -> bool:
    """add.Scalar and the like -> add.Tensor, whose second operand may be a number."""
    replace_with(graph, node, _SCALARS[node.target], node.args)
    return True


@looks_at(aten.rsub.Scalar, aten.rsub.Tensor)
def spell_reversed(graph: Graph, node: fx.Node) -> bool:
    """rsub(x, c) = c - x -> add(neg(x), c), or sub of two tensors."""
    values = arguments(node)
    x, other = values["self"], values["other"]
    rewriter = Rewriter(graph, node)
    if values["alpha"] != 1:
        x = rewriter.call(aten.mul.Tensor, x, values["alpha"])
    if isinstance(other, fx.Node):
        rewriter.finish(aten.sub.Tensor, other, x)
    else:
        rewriter.finish(aten.add.Tensor, rewriter.call(aten.neg.default, x), other)
    return True


@looks_at(aten.add.Tensor, aten.sub.Tensor)
def spell_alpha(graph: Graph, node: fx.Node) -> bool:
    """add(x, y, alpha=a) -> add(x, mul(y, a))."""
    values = arguments(node)
    alpha, other = values["alpha"], values["other"]
    if alpha == 1 and not node.kwargs and len(node.args) == 2:
        return False
    rewriter = Rewriter(graph, node)
    if alpha != 1:
        tensor = isinstance(other, fx.Node)
        other = rewriter.call(aten.mul.Tensor, other, alpha) if tensor else other * alpha
    rewriter.finish(node.target, values["self"], other)
    return True


@looks_at(*_PAIRS, aten.pow.Tensor_Tensor, aten.maximum.default, aten.minimum.default)
def read_numbers(graph: Graph, node: fx.Node) -> bool:
    """A stored constant of one value -> a number, where shape and dtype stay what they are."""
    first, second = node.args[:2]
    swaps = (aten.add.Tensor, aten.mul.Tensor, aten.maximum.default, aten.minimum.default)
    if _number(graph, first) is not None and node.target in swaps:
        first, second = second, first
    value = _number(graph, second)
    if value is None or not isinstance(first, fx.Node) or not same_shape(first, node):
        return False
    if graph.dtype(first) != graph.dtype(node):
        return False
    if node.target is aten.maximum.default:
        replace_with(graph, node, aten.clamp.default, (first, value, None))
    elif node.target is aten.minimum.default:
        replace_with(graph, node, aten.clamp.default, (first, None, value))
    elif node.target is aten.pow.Tensor_Tensor:
        replace_with(graph, node, aten.pow.Tensor_Scalar, (first, value))
    else:
        node.args = (first, value, *node.args[2:])
    return True


def _number(graph: Graph, value: Any) -> float | int | None:
    """Return the one value of a stored constant, or None."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None
    tensor = graph.attribute(str(value.target))
    if tensor.requires_grad or tensor.numel() != 1 or tensor.dtype == torch.bool:
        return None
    return tensor.item()


@looks_at(*_PAIRS)
def drop_neutral(graph: Graph, node: fx.Node) -> bool:
    """x + 0, x - 0, x * 1, x / 1 -> x; the 0 may be a stored tensor."""
    x, other = node.args[:2]
    if node.target is aten.add.Tensor and _is_zero(graph, x):
        x, other = other, x
    sums = node.target in (aten.add.Tensor, aten.sub.Tensor)
    neutral = isinstance(other, int | float) and other == (0 if sums else 1)
    neutral |= sums and _is_zero(graph, other)
    if not neutral or not isinstance(x, fx.Node) or not same_shape(x, node):
        return False
    if graph.dtype(x) != graph.dtype(node):
        return False
    forward(graph, node, x)
    return True


def _is_zero(graph: Graph, value: Any) -> bool:
    """Whether a value is a stored constant of zeros."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return False
    tensor = graph.attribute(str(value.target))
    return not tensor.requires_grad and not bool(tensor.any())


@looks_at(aten.mul.Tensor)
def spell_square(graph: Graph, node: fx.Node) -> bool:
    """mul(x, x) -> pow(x, 2): a function of one value."""
    if node.args[0] is not node.args[1]:
        return False
    replace_with(graph, node, aten.pow.Tensor_Scalar, (node.args[0], 2))
    return True


@looks_at(aten.div.Tensor)
def spell_division(graph: Graph, node: fx.Node) -> bool:
    """x / y, y computed and smaller than x -> x * reciprocal(y), one division for each y.

    Not where only a rounding reads it: the last bit decides there.
    """
    x, y = node.args[:2]
    if not isinstance(y, fx.Node) or not isinstance(x, fx.Node) or y.op == "get_attr":
        return False
    if same_shape(y, node) or not graph.dtype(y).is_floating_point:
        return False
    if all(user.target is aten.round.default for user in node.users):
        return False
    inverse = Rewriter(graph, node).call(aten.reciprocal.default, y)
    replace_with(graph, node, aten.mul.Tensor, (x, inverse))
    return True


@looks_at(*_PAIRS)
def drop_expand(graph: Graph, node: fx.Node) -> bool:
    """add(x, expand(y)) -> add(x, y) where the addition broadcasts by itself."""
    del graph
    for position in (0, 1):
        operand, other = node.args[position], node.args[1 - position]
        if is_call(operand, aten.expand.default) and isinstance(other, fx.Node):
            assert isinstance(operand, fx.Node)
            if not same_shape(other, node):
                continue
            node.update_arg(position, operand.args[0])
            return True
    return False


_POWERS = {
    0.5: aten.sqrt.default,
    -0.5: aten.rsqrt.default,
    -1: aten.reciprocal.default,
}


@looks_at(aten.pow.Tensor_Scalar, aten.square.default, aten.pow.Scalar)
def spell_power(graph: Graph, node: fx.Node) -> bool:
    """square -> pow 2; powers of 1, 1/2, -1/2, -1 by their names; c ** x -> exp(x * log(c))."""
    if node.target is aten.square.default:
        replace_with(graph, node, aten.pow.Tensor_Scalar, (node.args[0], 2))
        return True
    if node.target is aten.pow.Scalar:
        base, exponent = node.args
        assert isinstance(base, int | float)
        if base <= 0:
            return False
        scaled = Rewriter(graph, node).call(aten.mul.Tensor, exponent, math.log(base))
        replace_with(graph, node, aten.exp.default, (scaled,))
        return True
    x, power = node.args[:2]
    assert isinstance(x, fx.Node)
    if power == 1:
        forward(graph, node, x)
        return True
    named = _POWERS.get(power)
    if named is None:
        return False
    replace_with(graph, node, named, (x,))
    return True


@looks_at(aten.addcmul.default, aten.addcdiv.default, aten.lerp.Scalar)
def spell_compound(graph: Graph, node: fx.Node) -> bool:
    """addcmul, addcdiv, lerp -> their products, quotients and sums."""
    values = arguments(node)
    rewriter = Rewriter(graph, node)
    if node.target is aten.lerp.Scalar:
        change = rewriter.call(aten.sub.Tensor, values["end"], values["self"])
        factor = values["weight"]
    else:
        pair = aten.mul.Tensor if node.target is aten.addcmul.default else aten.div.Tensor
        change = rewriter.call(pair, values["tensor1"], values["tensor2"])
        factor = values["value"]
    scaled = change if factor == 1 else rewriter.call(aten.mul.Tensor, change, factor)
    rewriter.finish(aten.add.Tensor, values["self"], scaled)
    return True


_WHOLE: dict[Any, Any] = {
    aten.mean.default: aten.mean.dim,
    aten.sum.default: aten.sum.dim_IntList,
    aten.max.default: aten.amax.default,
    aten.min.default: aten.amin.default,
}


@looks_at(*_WHOLE)
def spell_whole(graph: Graph, node: fx.Node) -> bool:
    """A reduction of everything -> one over every axis."""
    x: Any = node.args[0]
    if rank(x) == 0:
        return False
    replace_with(graph, node, _WHOLE[node.target], (x, list(range(rank(x))), False))
    return True


@looks_at(aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default)
def write_axes(graph: Graph, node: fx.Node) -> bool:
    """Axes of a reduction as a list of positions from 0; a dtype that changes nothing goes."""
    values = arguments(node)
    count = rank(values["self"])
    axes = values["dim"]
    axes = [axes] if isinstance(axes, int) else list(axes or range(count))
    axes = sorted(axis % count for axis in axes)
    dtype = values.get("dtype")
    if dtype is not None and graph.dtype(values["self"]) != dtype:
        return False
    if tuple(node.args[1:]) == (axes, values["keepdim"]) and not node.kwargs:
        return False
    node.args, node.kwargs = (values["self"], axes, values["keepdim"]), {}
    return True


@looks_at(aten.max.dim, aten.min.dim)
def spell_extreme(graph: Graph, node: fx.Node) -> bool:
    """max over an axis: values -> amax, positions -> argmax."""
    values = arguments(node)
    greatest = node.target is aten.max.dim
    targets = (
        (aten.amax.default, aten.argmax.default)
        if greatest
        else (
            aten.amin.default,
            aten.argmin.default,
        )
    )
    if not is_unpacked(node):
        return False
    for user in list(node.users):
        if user.args[1] == 0:
            args = (values["self"], [values["dim"]], values["keepdim"])
        else:
            args = (values["self"], values["dim"], values["keepdim"])
        replace_with(graph, user, targets[user.args[1]], args)  # type: ignore[index]
    graph.fx.erase_node(node)
    return True


_SPREADS: dict[Any, tuple[bool, bool]] = {
    aten.var.correction: (False, False),
    aten.std.correction: (True, False),
    aten.var.dim: (False, False),
    aten.std.dim: (True, False),
    aten.var.default: (False, False),
    aten.std.default: (True, False),
    aten.var_mean.correction: (False, True),
    aten.std_mean.correction: (True, True),
    aten.var_mean.dim: (False, True),
    aten.std_mean.dim: (True, True),
}


@looks_at(*_SPREADS)
def spell_variance(graph: Graph, node: fx.Node) -> bool:
    """var(x) -> mean((x - mean(x)) ** 2) * n / (n - correction); std its root."""
    values = arguments(node)
    x: Any = values["self"]
    axes = [axis % rank(x) for axis in values.get("dim") or range(rank(x))]
    sizes = [graph.shape(x)[axis] for axis in axes]
    if None in sizes:
        return False
    count = math.prod(size for size in sizes if size is not None)
    correction = values.get("correction")
    correction = int(values.get("unbiased", True)) if correction is None else correction
    root, pairs = _SPREADS[node.target]
    keepdim = values.get("keepdim", False)
    if pairs and not is_unpacked(node):
        return False
    rewriter = Rewriter(graph, node)
    middle = rewriter.call(aten.mean.dim, x, axes, True)
    squares = rewriter.call(aten.pow.Tensor_Scalar, rewriter.call(aten.sub.Tensor, x, middle), 2)
    spread = rewriter.call(aten.mean.dim, squares, axes, keepdim)
    if correction:
        spread = rewriter.call(aten.mul.Tensor, spread, count / max(count - correction, 0))
    if root:
        spread = rewriter.call(aten.sqrt.default, spread)
    if not pairs:
        rewriter.become(spread)
        return True
    mean = middle if keepdim else rewriter.call(aten.mean.dim, x, axes, False)
    for user in list(node.users):
        forward(graph, user, (spread, mean)[user.args[1]])  # type: ignore[index]
    graph.fx.erase_node(node)
    return True


@looks_at(aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim, aten.norm.Scalar)
def spell_norm(graph: Graph, node: fx.Node) -> bool:
    """Euclidean norm -> sqrt(sum(x ** 2)); sum of magnitudes -> sum(abs(x))."""
    values = arguments(node)
    x: Any = values["self"]
    order = values.get("ord", values.get("p", 2))
    order = 2 if order is None else order
    if order not in (1, 2) or values.get("dtype") is not None:
        return False
    axes = values.get("dim")
    axes = [axes] if isinstance(axes, int) else list(axes or range(rank(x)))
    rewriter = Rewriter(graph, node)
    keepdim = values.get("keepdim", False)
    if order == 1:
        magnitude = rewriter.call(aten.abs.default, x)
        rewriter.finish(aten.sum.dim_IntList, magnitude, axes, keepdim)
        return True
    squares = rewriter.call(aten.pow.Tensor_Scalar, x, 2)
    total = rewriter.call(aten.sum.dim_IntList, squares, axes, keepdim)
    rewriter.finish(aten.sqrt.default, total)
    return True


@looks_at(aten._weight_norm.default)
def spell_weight_norm(graph: Graph, node: fx.Node) -> bool:
    """weight_norm(v, g) -> v * (g / |v|), the norm over every axis but one.

    Source: Salimans and Kingma 2016, equation 2.
    """
    values = arguments(node)
    v: Any = values["v"]
    axes = [axis for axis in range(rank(v)) if axis != values["dim"] % rank(v)]
    rewriter = Rewriter(graph, node)
    squares = rewriter.call(aten.pow.Tensor_Scalar, v, 2)
    norm = rewriter.call(
        aten.sqrt.default, rewriter.call(aten.sum.dim_IntList, squares, axes, True)
    )
    rewriter.finish(aten.mul.Tensor, v, rewriter.call(aten.div.Tensor, values["g"], norm))
    return True


ARITHMETIC_RULES = (
    spell_scalar,
    spell_reversed,
    spell_alpha,
    read_numbers,
    drop_neutral,
    spell_square,
    spell_division,
    drop_expand,
    spell_power,
    spell_compound,
    spell_whole,
    write_axes,
    spell_extreme,
    spell_variance,
    spell_norm,
    spell_weight_norm,
)

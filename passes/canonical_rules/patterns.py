"""Functions that were spelled out, by hand or by an exporter, by their names again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph

from .rewriting import is_call, looks_at, rank, replace_with, same_shape

aten = torch.ops.aten

_TOLERANCE = 1e-4


def _close(value: Any, wanted: float) -> bool:
    return isinstance(value, int | float) and abs(value - wanted) <= _TOLERANCE * abs(wanted)


def _both_ways(node: Any, target: Any) -> Iterator[tuple[Any, Any]]:
    """The two operands of a commutative call, in both orders; nothing for another node."""
    if is_call(node, target):
        first, second = node.args[:2]
        yield first, second
        yield second, first


def _scaled(node: Any, factor: float) -> Any:
    """Return x if `node` is x * factor or x / (1 / factor), else None."""
    if is_call(node, aten.mul.Tensor) and _close(node.args[1], factor):
        return node.args[0]
    if is_call(node, aten.div.Tensor) and _close(node.args[1], 1.0 / factor):
        return node.args[0]
    return None


def _shifted(node: Any, amount: float) -> Any:
    """Return x if `node` is x + amount, else None."""
    if is_call(node, aten.add.Tensor) and _close(node.args[1], amount):
        return node.args[0]
    return None


@looks_at(aten.mul.Tensor, aten.div.Tensor)
def find_gelu(graph: Graph, node: fx.Node) -> bool:
    """x * 0.5 * (1 + erf(x / sqrt(2))), or tanh(sqrt(2 / pi) * (x + 0.044715 x^3)) -> gelu.

    Source: Hendrycks and Gimpel 2016, section 2.
    """
    for x, approximate in _gelu_candidates(node):
        if not isinstance(x, fx.Node) or x.op == "get_attr":
            continue
        with graph.fx.inserting_before(node):
            new = graph.fx.call_function(aten.gelu.default, (x,), approximate)
        new.meta.update(node.meta)
        node.replace_all_uses_with(new)
        graph.fx.erase_node(node)
        return True
    return False


def _gelu_candidates(node: fx.Node) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The x of what multiplies to 0.5 * x * (1 + f(x)) in any order of the factors."""
    factors = list(_factors(node))
    numbers = [factor for factor in factors if isinstance(factor, int | float)]
    others = [factor for factor in factors if isinstance(factor, fx.Node)]
    if not _close(math.prod(numbers), 0.5) or len(others) != 2:
        return
    for x, bracket in (others, others[::-1]):
        inner = _shifted(bracket, 1.0)
        if is_call(inner, aten.erf.default) and _scaled(inner.args[0], math.sqrt(0.5)) is x:
            yield x, {}
        if is_call(inner, aten.tanh.default) and _is_tanh_argument(inner.args[0], x):
            yield x, {"approximate": "tanh"}


def _factors(node: Any) -> Iterator[Any]:
    """The factors of a product, up to three levels deep; quotients by numbers as factors."""
    if is_call(node, aten.mul.Tensor):
        for operand in node.args[:2]:
            nested = is_call(operand, aten.mul.Tensor) or _is_quotient(operand)
            alone = nested and len(operand.users) == 1
            yield from _factors(operand) if alone else (operand,)
    elif _is_quotient(node):
        yield 1.0 / node.args[1]
        yield from _factors(node.args[0])
    else:
        yield node


def _is_quotient(node: Any) -> bool:
    return is_call(node, aten.div.Tensor) and isinstance(node.args[1], int | float)


def _is_tanh_argument(node: Any, x: Any) -> bool:
    """Whether node is sqrt(2 / pi) * (x + 0.044715 * x ** 3), or x * (1 + 0.044715 * x * x)."""
    root = math.sqrt(2.0 / math.pi)
    factors = list(_factors(node))
    numbers = math.prod(f for f in factors if isinstance(f, int | float))
    others = [factor for factor in factors if isinstance(factor, fx.Node)]
    if len(others) == 1 and _close(numbers, root):
        for first, second in _both_ways(others[0], aten.add.Tensor):
            if first is x and _is_cube(second, x, 0.044715):
                return True
    if len(others) == 2 and x in others and _close(numbers, root):
        (bracket,) = (other for other in others if other is not x)
        squared = _shifted(bracket, 1.0)
        return _is_power(squared, x, 2, 0.044715)
    return False


def _is_cube(node: Any, x: Any, factor: float) -> bool:
    return _is_power(node, x, 3, factor)


def _is_power(node: Any, x: Any, power: int, factor: float) -> bool:
    """Whether node is factor * x ** power, written in any way."""
    count, number = 0, 1.0
    for part in _factors(node):
        if isinstance(part, int | float):
            number *= part
        elif part is x:
            count += 1
        elif is_call(part, aten.pow.Tensor_Scalar) and part.args[0] is x:
            count += int(part.args[1])
        else:
            return False
    return count == power and _close(number, factor)


@looks_at(aten.mul.Tensor, aten.div.Tensor)
def find_product_with_itself(graph: Graph, node: fx.Node) -> bool:
    """x * sigmoid(x) -> silu; x * hardsigmoid(x) -> hardswish; x * tanh(softplus(x)) -> mish.

    Sources: Elfwing et al. 2018; Howard et al. 2019, section 5.2; Misra 2019.
    """
    if is_call(node, aten.div.Tensor):
        return _find_quotient(graph, node)
    for x, gate in _both_ways(node, aten.mul.Tensor):
        named = _GATES.get(gate.target) if isinstance(gate, fx.Node) else None
        if named is not None and gate.args[0] is x:
            replace_with(graph, node, named, (x,))
            return True
        soft: Any = gate.args[0] if is_call(gate, aten.tanh.default) else None
        plain = is_call(soft, aten.softplus.default) and soft.args[1:] in ((), (1, 20), (1.0, 20.0))
        if (plain and soft.args[0] is x) or _is_log_of_sum(soft, x):
            replace_with(graph, node, aten.mish.default, (x,))
            return True
    return False


_GATES: dict[Any, Any] = {
    aten.sigmoid.default: aten.silu.default,
    aten.hardsigmoid.default: aten.hardswish.default,
}


def _is_log_of_sum(node: Any, x: Any) -> bool:
    """Whether node is log(1 + exp(x)) or log1p(exp(x))."""
    inner = None
    if is_call(node, aten.log1p.default):
        inner = node.args[0]
    elif is_call(node, aten.log.default):
        inner = _shifted(node.args[0], 1.0)
    return is_call(inner, aten.exp.default) and inner.args[0] is x


def _find_quotient(graph: Graph, node: fx.Node) -> bool:
    """clamp(x + 3, 0, 6) * x / 6 -> hardswish."""
    if not _close(node.args[1], 6.0):
        return False
    for x, clamped in _both_ways(node.args[0], aten.mul.Tensor):
        if _is_hard_clamp(clamped, x):
            replace_with(graph, node, aten.hardswish.default, (x,))
            return True
    return False


def _is_hard_clamp(node: Any, x: Any) -> bool:
    """Whether node is clamp(x + 3, 0, 6)."""
    if not is_call(node, aten.clamp.default) or tuple(node.args[1:3]) != (0, 6):
        return False
    return _shifted(node.args[0], 3.0) is x


@looks_at(aten.mul.Tensor, aten.div.Tensor)
def find_hardsigmoid(graph: Graph, node: fx.Node) -> bool:
    """clamp(x + 3, 0, 6) / 6 -> hardsigmoid."""
    clamped = _scaled(node, 1.0 / 6.0)
    if not is_call(clamped, aten.clamp.default):
        return False
    moved = clamped.args[0]
    x = moved.args[0] if is_call(moved, aten.add.Tensor) else None
    if not isinstance(x, fx.Node) or not _is_hard_clamp(clamped, x):
        return False
    replace_with(graph, node, aten.hardsigmoid.default, (x,))
    return True


@looks_at(aten.clamp.default)
def find_linear_clamp(graph: Graph, node: fx.Node) -> bool:
    """clamp(x / 6 + 0.5, 0, 1) -> hardsigmoid."""
    if tuple(node.args[1:3]) != (0, 1):
        return False
    x = _scaled(_shifted(node.args[0], 0.5), 1.0 / 6.0)
    if not isinstance(x, fx.Node):
        return False
    replace_with(graph, node, aten.hardsigmoid.default, (x,))
    return True


@looks_at(aten.div.Tensor, aten.mul.Tensor)
def find_layer_norm(graph: Graph, node: fx.Node) -> bool:
    """(x - mean(x)) / sqrt(mean((x - mean(x)) ** 2) + eps) -> layer_norm.

    Over the last axes. A weight and a bias behind it are added by `find_affine`.
    Source: Ba et al. 2016, equation 4.
    """
    parts = _quotient_by_root(node)
    if parts is None:
        return False
    centered, variance = parts
    epsilon = variance.args[1] if is_call(variance, aten.add.Tensor) else None
    if not isinstance(epsilon, int | float) or not is_call(centered, aten.sub.Tensor):
        return False
    x, mean = centered.args[:2]
    spread = variance.args[0]
    if not is_call(mean, aten.mean.dim) or not is_call(spread, aten.mean.dim):
        return False
    if mean.args[0] is not x or not _squares(spread.args[0], x, mean):
        return False
    count = rank(x)
    for reduced in (mean, spread):
        axes = sorted(axis % count for axis in reduced.args[1])
        kept = len(reduced.args) > 2 and reduced.args[2]
        if axes != list(range(count - len(axes), count)) or not kept:
            return False
    if len(spread.args[1]) != len(mean.args[1]):
        return False
    shape = list(graph.shape(x))[count - len(mean.args[1]) :]
    if None in shape:
        return False
    args = (x, shape, None, None, epsilon)
    replace_with(graph, node, aten.layer_norm.default, args)
    return True


def _quotient_by_root(node: fx.Node) -> tuple[Any, Any] | None:
    """Return (a, b) if node is a / sqrt(b), a * rsqrt(b) or a * reciprocal(sqrt(b))."""
    if is_call(node, aten.div.Tensor):
        root = node.args[1]
        return (node.args[0], root.args[0]) if is_call(root, aten.sqrt.default) else None
    for a, factor in _both_ways(node, aten.mul.Tensor):
        if is_call(factor, aten.rsqrt.default):
            return a, factor.args[0]
        if is_call(factor, aten.reciprocal.default) and is_call(factor.args[0], aten.sqrt.default):
            return a, factor.args[0].args[0]
    return None


def _squares(node: Any, x: fx.Node, mean: fx.Node) -> bool:
    """Whether node is (x - mean) ** 2; the difference may have been computed again."""
    if not is_call(node, aten.pow.Tensor_Scalar) or node.args[1] != 2:
        return False
    deviation = node.args[0]
    if not is_call(deviation, aten.sub.Tensor) or deviation.args[0] is not x:
        return False
    other = deviation.args[1]
    return other is mean or (
        is_call(other, aten.mean.dim) and tuple(other.args) == tuple(mean.args)
    )


@looks_at(aten.mul.Tensor, aten.add.Tensor)
def find_affine(graph: Graph, node: fx.Node) -> bool:
    """layer_norm(x) * weight + bias, stored ones -> arguments of the layer_norm."""
    target = node.target
    for norm, stored in _both_ways(node, target):
        if not is_call(norm, aten.layer_norm.default) or len(norm.users) != 1:
            continue
        x, shape, weight, bias, *rest = norm.args
        if not isinstance(stored, fx.Node) or stored.op != "get_attr":
            continue
        if list(graph.shape(stored)) != list(shape) or not same_shape(norm, node):
            continue
        if target is aten.mul.Tensor and weight is None and bias is None:
            args = (x, shape, stored, None, *rest)
        elif target is aten.add.Tensor and bias is None:
            args = (x, shape, weight, stored, *rest)
        else:
            continue
        replace_with(graph, node, aten.layer_norm.default, args)
        return True
    return False


PATTERN_RULES = (
    find_gelu,
    find_product_with_itself,
    find_hardsigmoid,
    find_linear_clamp,
    find_layer_norm,
    find_affine,
)

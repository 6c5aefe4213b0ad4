"""Products of matrices: a stored matrix makes a linear layer, two activations a matmul."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.infer import infer_node
from planish.ir.ops import arguments

from .rewriting import Rewriter, is_call, looks_at, rank, replace_with, reshape_sizes

aten = torch.ops.aten


@looks_at(aten.addmm.default, aten.mm.default, aten.matmul.default)
def spell_linear(graph: Graph, node: fx.Node) -> bool:
    """addmm(b, x, t(w)), mm(x, t(w)) and matmul(x, t(w)), w stored -> linear(x, w, b)."""
    bias: Any = None
    if node.target is aten.addmm.default:
        values = arguments(node)
        bias, x, matrix = values["self"], values["mat1"], values["mat2"]
        fits = isinstance(bias, fx.Node) and bias.op == "get_attr" and rank(bias) == 1
        if not fits or values["beta"] != 1 or values["alpha"] != 1:
            return False
    else:
        x, matrix = node.args
    assert isinstance(x, fx.Node)
    if x.op == "get_attr":
        return False
    weight = _transposed_weight(matrix) or _transpose_stored(graph, node, matrix)
    if weight is None:
        return False
    replace_with(graph, node, aten.linear.default, (x, weight, bias))
    return True


def _transposed_weight(node: Any) -> fx.Node | None:
    """Return w if `node` is the transpose of a stored matrix w."""
    if not is_call(node, aten.t.default, aten.permute.default):
        return None
    swapped = node.target is aten.t.default or list(node.args[1]) == [1, 0]
    source = node.args[0]
    stored = isinstance(source, fx.Node) and source.op == "get_attr"
    return source if swapped and stored else None


def _transpose_stored(graph: Graph, node: fx.Node, matrix: Any) -> fx.Node | None:
    """Turn a stored matrix [in, out] into a weight [out, in], if only this node reads it."""
    if not isinstance(matrix, fx.Node) or matrix.op != "get_attr" or rank(matrix) != 2:
        return None
    readers = [
        user
        for other in graph.nodes
        if other.op == "get_attr" and other.target == matrix.target
        for user in other.users
    ]
    if readers != [node]:
        return None
    name = str(matrix.target)
    value = graph.attribute(name)
    graph.set_attribute(name, value.t().contiguous(), trainable=value.requires_grad)
    infer_node(matrix, graph.module)
    return matrix


_MATMULS = (aten.mm.default, aten.bmm.default)


@looks_at(*_MATMULS, aten.addmm.default, aten.baddbmm.default, aten.matmul.default)
def spell_matmul(graph: Graph, node: fx.Node) -> bool:
    """mm, bmm -> matmul; addmm, baddbmm -> matmul and add; a vector becomes a matrix."""
    if node.target in _MATMULS:
        replace_with(graph, node, aten.matmul.default, node.args)
        return True
    if node.target is aten.matmul.default:
        return _matrices(graph, node)
    values = arguments(node)
    batched = node.target is aten.baddbmm.default
    first, second = ("batch1", "batch2") if batched else ("mat1", "mat2")
    rewriter = Rewriter(graph, node)
    product = rewriter.call(aten.matmul.default, values[first], values[second])
    if values["alpha"] != 1:
        product = rewriter.call(aten.mul.Tensor, product, values["alpha"])
    if values["beta"] == 0:
        rewriter.become(product)
        return True
    added = values["self"]
    if values["beta"] != 1:
        added = rewriter.call(aten.mul.Tensor, added, values["beta"])
    rewriter.finish(aten.add.Tensor, product, added)
    return True


def _matrices(graph: Graph, node: fx.Node) -> bool:
    """matmul(x, vector) -> squeeze(matmul(x, [[vector]])), and the other way round."""
    first, second = node.args
    assert isinstance(first, fx.Node)
    assert isinstance(second, fx.Node)
    if rank(first) > 1 and rank(second) > 1:
        return False
    rewriter = Rewriter(graph, node)
    left = rewriter.call(aten.unsqueeze.default, first, 0) if rank(first) == 1 else first
    right = rewriter.call(aten.unsqueeze.default, second, 1) if rank(second) == 1 else second
    product = rewriter.call(aten.matmul.default, left, right)
    squeezed = [rank(product) - 2] * (left is not first) + [rank(product) - 1] * (
        right is not second
    )
    rewriter.finish(aten.squeeze.dims, product, squeezed)
    return True


@looks_at(aten.mv.default, aten.dot.default, aten.vdot.default)
def spell_vectors(graph: Graph, node: fx.Node) -> bool:
    """mv -> matmul with a matrix of one column; dot -> sum of products."""
    first, second = node.args
    rewriter = Rewriter(graph, node)
    if node.target is aten.mv.default:
        column = rewriter.call(aten.unsqueeze.default, second, 1)
        product = rewriter.call(aten.matmul.default, first, column)
        rewriter.finish(aten.squeeze.dims, product, [1])
    else:
        products = rewriter.call(aten.mul.Tensor, first, second)
        rewriter.finish(aten.sum.dim_IntList, products, [0], False)
    return True


@looks_at(aten.einsum.default)
def spell_einsum(graph: Graph, node: fx.Node) -> bool:
    """einsum of one or two operands -> permute, sum, reshape, matmul."""
    equation, operands = node.args[:2]
    assert isinstance(equation, str)
    assert isinstance(operands, list | tuple)
    parsed = _labels(equation, [rank(x) for x in operands])  # type: ignore[arg-type]
    if parsed is None or len(operands) > 2:
        return False
    inputs, output = parsed
    tensors = [operand for operand in operands if isinstance(operand, fx.Node)]
    rewriter = Rewriter(graph, node)
    reduced = [
        _sum_alone(rewriter, x, own, {*output}.union(*(o for o in inputs if o is not own)))
        for x, own in zip(tensors, inputs, strict=True)
    ]
    if len(reduced) == 1:
        ((x, own),) = reduced
        rewriter.finish(aten.permute.default, x, [own.index(label) for label in output])
        return True
    (a, left), (b, right) = reduced
    result, labels = _Contraction(rewriter, output).product(a, left, b, right)
    rewriter.finish(aten.permute.default, result, [labels.index(label) for label in output])
    return True


def _labels(equation: str, ranks: list[int]) -> tuple[list[list[str]], list[str]] | None:
    """Read an equation; "..." becomes digits. None for a label twice in one operand."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    spans = [count - len(t.replace("...", "")) for t, count in zip(terms, ranks, strict=True)]
    widest = max((span for t, span in zip(terms, spans, strict=True) if "..." in t), default=0)

    def spelled(term: str, span: int) -> list[str]:
        digits = "".join(str(i) for i in range(widest - span, widest))
        return list(term.replace("...", digits))

    inputs = [spelled(term, span) for term, span in zip(terms, spans, strict=True)]
    if any(len(set(own)) < len(own) for own in inputs):
        return None
    if arrow:
        return inputs, spelled(right, widest)
    everything = [label for own in inputs for label in own]
    once = sorted(label for label in set(everything) if everything.count(label) == 1)
    dots = [label for label in map(str, range(widest))]
    return inputs, dots + [label for label in once if label not in dots]


def _sum_alone(
    rewriter: Rewriter, x: fx.Node, own: list[str], kept: set[str]
) -> tuple[fx.Node, list[str]]:
    """Sum over the axes that neither the other operand nor the output has."""
    alone = [axis for axis, label in enumerate(own) if label not in kept]
    if not alone:
        return x, own
    summed = rewriter.call(aten.sum.dim_IntList, x, alone, False)
    return summed, [label for label in own if label in kept]


class _Contraction:
    """The product of two labelled tensors as one matmul."""

    def __init__(self, rewriter: Rewriter, output: list[str]) -> None:
        self.rewriter, self.output = rewriter, output

    def product(
        self, a: fx.Node, left: list[str], b: fx.Node, right: list[str]
    ) -> tuple[fx.Node, list[str]]:
        """Return the product and the labels of its axes."""
        shared = [label for label in left if label in right]
        batch = [label for label in shared if label in self.output]
        inner = [label for label in shared if label not in self.output]
        rows = [label for label in left if label not in shared]
        columns = [label for label in right if label not in shared]
        sizes = {
            label: size
            for x, own in ((a, left), (b, right))
            for label, size in zip(own, self.rewriter.graph.shape(x), strict=True)
        }
        first = self._matrix(a, left, batch, rows, inner, sizes)
        second = self._matrix(b, right, batch, inner, columns, sizes)
        result = self.rewriter.call(aten.matmul.default, first, second)
        labels = [*batch, *rows, *columns]
        if (len(rows), len(columns)) != (1, 1):
            spelled = [-1 if sizes[label] is None else sizes[label] for label in labels]
            result = self.rewriter.call(aten.reshape.default, result, spelled)
        return result, labels

    def _matrix(
        self,
        x: fx.Node,
        own: list[str],
        batch: list[str],
        rows: list[str],
        columns: list[str],
        sizes: dict[str, int | None],
    ) -> fx.Node:
        """Bring a tensor to [*batch, rows, columns]."""
        order = [own.index(label) for label in (*batch, *rows, *columns)]
        if order != sorted(order):
            x = self.rewriter.call(aten.permute.default, x, order)
        if (len(rows), len(columns)) == (1, 1):
            return x
        spelled = [sizes[label] for label in batch]
        for group in (rows, columns):
            known = [sizes[label] for label in group]
            spelled.append(None if None in known else prod(s for s in known if s is not None))
        return self.rewriter.call(aten.reshape.default, x, reshape_sizes(spelled))


@looks_at(aten.add.Tensor)
def absorb_bias(graph: Graph, node: fx.Node) -> bool:
    """linear(x, w) + b, b stored with one entry an output -> linear(x, w, b), as ONNX spells it."""
    values = arguments(node)
    if values["alpha"] != 1:
        return False
    for product, bias in (
        (values["self"], values["other"]),
        (values["other"], values["self"]),
    ):
        if not is_call(product, aten.linear.default) or len(product.users) > 1:
            continue
        x, weight, known, *_ = *product.args, None
        stored = isinstance(bias, fx.Node) and bias.op == "get_attr"
        if (
            known is not None
            or not stored
            or bias.meta["val"].shape != weight.meta["val"].shape[:1]
        ):
            continue
        new = replace_with(graph, node, aten.linear.default, (x, weight, bias))
        new.meta["origin"] = product.meta["origin"]
        return True
    return False


PRODUCT_RULES = (spell_linear, spell_einsum, spell_vectors, spell_matmul, absorb_bias)

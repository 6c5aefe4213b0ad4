"""Shape operators: no baked-in batch, one spelling, lists of pieces as slices."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments

from .rewriting import insert_after, replace_with

aten = torch.ops.aten
# What torch.export writes where a slice has no end.
_END = 2**63 - 1


def spell_view(graph: Graph, node: fx.Node) -> bool:
    """reshape and view -> flatten where that is what they do, else reshape([-1, ...]).

    reshape, not view: what a view may do depends on strides, which are no part of a value.
    """
    if node.target not in (aten.view.default, aten.reshape.default, aten._unsafe_view.default):
        return False
    source = node.args[0]
    assert isinstance(source, fx.Node)
    old, new = graph.shape(source), graph.shape(node)
    if old == new:
        node.replace_all_uses_with(source)
        graph.fx.erase_node(node)
        return True
    if _keeps_batch(source, node) and len(new) == 2 and len(old) > 2:
        replace_with(graph, node, aten.flatten.using_ints, (source, 1, -1))
        return True
    sizes = [-1 if size is None else size for size in new]
    if sizes.count(-1) > 1:
        return False
    if node.target is aten.reshape.default and list(node.args[1]) == sizes:  # type: ignore[arg-type]
        return False
    replace_with(graph, node, aten.reshape.default, (source, sizes))
    return True


def _keeps_batch(source: fx.Node, node: fx.Node) -> bool:
    before, after = source.meta["val"].shape[0], node.meta["val"].shape[0]
    return str(before) == str(after)


def spell_flatten(graph: Graph, node: fx.Node) -> bool:
    """A flatten of one axis is nothing; unwritten ends become -1; others are reshapes."""
    if node.target is not aten.flatten.using_ints:
        return False
    values = arguments(node)
    source: fx.Node = values["self"]
    rank = len(graph.shape(source))
    start, end = values["start_dim"] % rank, values["end_dim"] % rank
    if start == end:
        node.replace_all_uses_with(source)
        graph.fx.erase_node(node)
        return True
    if (start, end) == (1, rank - 1):
        if (values["start_dim"], values["end_dim"]) == (1, -1):
            return False
        node.args, node.kwargs = (source, 1, -1), {}
        return True
    sizes = [-1 if size is None else size for size in graph.shape(node)]
    if sizes.count(-1) > 1:
        return False
    replace_with(graph, node, aten.reshape.default, (source, sizes))
    return True


def spell_transpose(graph: Graph, node: fx.Node) -> bool:
    """transpose, t and the attribute T -> permute."""
    if node.target in (aten.t.default, aten.numpy_T.default):
        if len(graph.shape(node)) != 2:
            return False
        first, second = 0, 1
    elif node.target is aten.transpose.int:
        values = arguments(node)
        first, second = int(values["dim0"]), int(values["dim1"])
    else:
        return False
    order = list(range(len(graph.shape(node))))
    order[first], order[second] = order[second], order[first]
    replace_with(graph, node, aten.permute.default, (node.args[0], order))
    return True


def spell_slice(graph: Graph, node: fx.Node) -> bool:
    """A slice of everything is nothing; ends and negative positions become plain positions."""
    if node.target is not aten.slice.Tensor:
        return False
    values = arguments(node)
    source: fx.Node = values["self"]
    axis = values["dim"] % len(graph.shape(source))
    size = graph.shape(source)[axis]
    start, end = values["start"] or 0, values["end"]
    everything = start == 0 and values["step"] == 1 and (end is None or end == _END)
    if everything or (size is not None and (start, end, values["step"]) == (0, size, 1)):
        node.replace_all_uses_with(source)
        graph.fx.erase_node(node)
        return True
    if size is None or not isinstance(start, int) or not isinstance(end, int | None):
        return False
    start, end, _ = slice(start, end).indices(size)
    plain = (source, axis, start, end, values["step"])
    if node.args == plain and not node.kwargs:
        return False
    node.args, node.kwargs = plain, {}
    return True


def spell_global_mean(graph: Graph, node: fx.Node) -> bool:
    """mean over both spatial axes -> adaptive_avg_pool2d([1, 1]), flattened if not keepdim."""
    if node.target is not aten.mean.dim:
        return False
    values = arguments(node)
    source: fx.Node = values["self"]
    rank = len(graph.shape(source))
    axes = {axis % rank for axis in values["dim"] or ()}
    if rank != 4 or axes != {2, 3} or values["dtype"] is not None:
        return False
    pooled = insert_after(graph, source, aten.adaptive_avg_pool2d.default, (source, [1, 1]))
    pooled.meta["origin"] = node.meta["origin"]
    if values["keepdim"]:
        node.replace_all_uses_with(pooled)
        graph.fx.erase_node(node)
    else:
        replace_with(graph, node, aten.flatten.using_ints, (pooled, 1, -1))
    return True


def spell_pieces(graph: Graph, node: fx.Node) -> bool:
    """chunk, split and split_with_sizes, read piece by piece -> one slice a piece."""
    if node.target not in (
        aten.chunk.default,
        aten.split.Tensor,
        aten.split_with_sizes.default,
    ):
        return False
    if any(user.target is not operator.getitem for user in node.users):
        return False
    source: Any = node.args[0]
    values = arguments(node)
    axis = values["dim"] % len(graph.shape(source))
    starts = _starts([piece.shape[axis] for piece in node.meta["val"]])
    for user in list(node.users):
        start, end = starts[user.args[1]]  # type: ignore[index]
        replace_with(graph, user, aten.slice.Tensor, (source, axis, start, end, 1))
    graph.fx.erase_node(node)
    return True


def _starts(sizes: list[int]) -> list[tuple[int, int]]:
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def merge_reshapes(graph: Graph, node: fx.Node) -> bool:
    """reshape(reshape(x)) -> reshape(x)."""
    source = node.args[0] if node.args else None
    if node.target is not aten.reshape.default or not isinstance(source, fx.Node):
        return False
    if source.target is not aten.reshape.default or len(source.users) > 1:
        return False
    del graph
    node.update_arg(0, source.args[0])
    return True


SHAPE_RULES = (
    spell_view,
    spell_flatten,
    spell_transpose,
    spell_slice,
    spell_global_mean,
    spell_pieces,
    merge_reshapes,
)

"""Shape operators: no baked-in batch, one spelling."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments

from .rewriting import Rewriter, forward, is_call, looks_at, rank, replace_with, reshape_sizes

aten = torch.ops.aten


@looks_at(aten.view.default, aten.reshape.default, aten._unsafe_view.default)
def spell_view(graph: Graph, node: fx.Node) -> bool:
    """reshape and view -> flatten where that is what they do, else reshape([-1, ...]).

    reshape, not view: what a view may do depends on strides, which are no part of a value.
    """
    source = node.args[0]
    assert isinstance(source, fx.Node)
    old, new = graph.shape(source), graph.shape(node)
    if old == new:
        forward(graph, node, source)
        return True
    if len(new) == 2 and len(old) > 2 and _keeps_batch(source, node):
        replace_with(graph, node, aten.flatten.using_ints, (source, 1, -1))
        return True
    sizes = reshape_sizes(new)
    if sizes.count(-1) > 1:
        return False
    if node.target is aten.reshape.default and list(node.args[1]) == sizes:  # type: ignore[arg-type]
        return False
    replace_with(graph, node, aten.reshape.default, (source, sizes))
    return True


def _keeps_batch(source: fx.Node, node: fx.Node) -> bool:
    before, after = source.meta["val"].shape[0], node.meta["val"].shape[0]
    return str(before) == str(after)


@looks_at(aten.flatten.using_ints)
def spell_flatten(graph: Graph, node: fx.Node) -> bool:
    """A flatten of one axis is nothing; unwritten ends become -1; others are reshapes."""
    values = arguments(node)
    source: fx.Node = values["self"]
    rank = len(graph.shape(source))
    start, end = values["start_dim"] % rank, values["end_dim"] % rank
    if start == end:
        forward(graph, node, source)
        return True
    if (start, end) == (1, rank - 1):
        if (values["start_dim"], values["end_dim"]) == (1, -1):
            return False
        node.args, node.kwargs = (source, 1, -1), {}
        return True
    sizes = reshape_sizes(graph.shape(node))
    if sizes.count(-1) > 1:
        return False
    replace_with(graph, node, aten.reshape.default, (source, sizes))
    return True


@looks_at(aten.mean.dim)
def spell_global_mean(graph: Graph, node: fx.Node) -> bool:
    """mean over both spatial axes -> adaptive_avg_pool2d([1, 1]), flattened if not keepdim."""
    values = arguments(node)
    source: fx.Node = values["self"]
    rank = len(graph.shape(source))
    axes = {axis % rank for axis in values["dim"] or ()}
    if rank != 4 or axes != {2, 3} or values["dtype"] is not None:
        return False
    if values["keepdim"]:
        replace_with(graph, node, aten.adaptive_avg_pool2d.default, (source, [1, 1]))
        return True
    pooled = Rewriter(graph, node).call(aten.adaptive_avg_pool2d.default, source, [1, 1])
    pooled.meta["origin"] = node.meta["origin"]
    replace_with(graph, node, aten.flatten.using_ints, (pooled, 1, -1))
    return True


_RESHAPES = (
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unsqueeze.default,
    aten.squeeze.dims,
)


@looks_at(aten.reshape.default, aten.flatten.using_ints)
def merge_reshapes(graph: Graph, node: fx.Node) -> bool:
    """reshape(reshape(x)) -> reshape(x); flatten(reshape(x)) too, where x has the same batch."""
    source = node.args[0]
    if not is_call(source, *_RESHAPES):
        return False
    assert isinstance(source, fx.Node)
    x = source.args[0]
    assert isinstance(x, fx.Node)
    if node.target is aten.flatten.using_ints:
        if not _keeps_batch(x, node) or rank(x) < 2:
            return False
    elif not _size_follows(graph, x, node):
        return False
    node.update_arg(0, x)
    return True


def _size_follows(graph: Graph, x: fx.Node, node: fx.Node) -> bool:
    """Whether the sizes of a reshape can be found from x: a -1, or no open size in x."""
    sizes: Any = node.args[1]
    return -1 in sizes or None not in graph.shape(x)


@looks_at(aten.unflatten.int, aten.squeeze.default, aten.squeeze.dim, aten.view_as.default)
def spell_axes(graph: Graph, node: fx.Node) -> bool:
    """unflatten -> reshape; squeeze of one axis, or of all of size 1 -> squeeze.dims."""
    values = arguments(node)
    source: fx.Node = values["self"]
    if node.target in (aten.unflatten.int, aten.view_as.default):
        sizes = reshape_sizes(graph.shape(node))
        if sizes.count(-1) > 1:
            return False
        replace_with(graph, node, aten.reshape.default, (source, sizes))
        return True
    before = graph.shape(source)
    axes = range(rank(source)) if "dim" not in values else [values["dim"] % rank(source)]
    axes = [axis for axis in axes if before[axis] == 1]
    if not axes:
        forward(graph, node, source)
    else:
        replace_with(graph, node, aten.squeeze.dims, (source, axes))
    return True


@looks_at(aten.unsqueeze.default, aten.squeeze.dims)
def write_positions(graph: Graph, node: fx.Node) -> bool:
    """Axes as positions from 0; what was squeezed and unsqueezed again is left alone."""
    source, axes = node.args
    assert isinstance(source, fx.Node)
    if node.target is aten.unsqueeze.default:
        plain: Any = axes % (rank(source) + 1)  # type: ignore[operator]
        inverse, undone = aten.squeeze.dims, [plain]
    else:
        found: Any = [axes] if isinstance(axes, int) else axes
        plain = sorted(axis % rank(source) for axis in found)
        inverse, undone = aten.unsqueeze.default, plain[0] if len(plain) == 1 else None
    if is_call(source, inverse) and source.args[1] == undone:
        forward(graph, node, source.args[0])
        return True
    if axes == plain:
        return False
    node.update_arg(1, plain)
    return True


SHAPE_RULES = (
    spell_view,
    spell_flatten,
    spell_axes,
    write_positions,
    merge_reshapes,
    spell_global_mean,
)

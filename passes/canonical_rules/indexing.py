"""Indexing with stored positions."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments

from .rewriting import Rewriter, is_call, looks_at, rank, replace_with, tensor_name

aten = torch.ops.aten


@looks_at(aten.index.Tensor)
def spell_index(graph: Graph, node: fx.Node) -> bool:
    """x[:, i], x[i, j] with stored i, j on neighbouring axes -> reshape, index_select, reshape."""
    x, indices = node.args
    assert isinstance(x, fx.Node)
    places = [axis for axis, index in enumerate(indices) if index is not None]  # type: ignore[arg-type]
    found = [_stored_index(graph, indices[axis]) for axis in places]  # type: ignore[index]
    if not places or places != list(range(places[0], places[-1] + 1)):
        return False
    if any(index is None for index in found):
        return False
    positions = [index for index in found if index is not None]
    if any(index.dtype == torch.bool for index in positions):
        if len(positions) > 1 or positions[0].dim() != 1:
            return False
        positions = [positions[0].nonzero().flatten()]
    sizes = [graph.shape(x)[axis] for axis in places]
    if None in sizes:
        return False
    linear = torch.zeros((), dtype=torch.int64)
    for index, size in zip(torch.broadcast_tensors(*positions), sizes, strict=True):
        linear = linear * size + index % size  # type: ignore[operator]
    rewriter = Rewriter(graph, node)
    first, shape = places[0], list(graph.shape(x))
    if len(places) > 1:
        known = prod(size for size in sizes if size is not None)
        merged = [*shape[:first], known, *shape[first + len(places) :]]
        if merged.count(None) > 1:
            return False
        x = rewriter.call(
            aten.reshape.default, x, [-1 if size is None else size for size in merged]
        )
    stored = rewriter.store(tensor_name(node, "index"), linear.flatten())
    picked = (x, first, stored)
    if linear.dim() == 1:
        rewriter.finish(aten.index_select.default, *picked)
        return True
    selected = rewriter.call(aten.index_select.default, *picked)
    wanted = [-1 if size is None else size for size in graph.shape(node)]
    if wanted.count(-1) > 1:
        return False
    rewriter.finish(aten.reshape.default, selected, wanted)
    return True


def _stored_index(graph: Graph, index: Any) -> torch.Tensor | None:
    if not isinstance(index, fx.Node) or index.op != "get_attr":
        return None
    return graph.attribute(str(index.target)).detach()


@looks_at(aten.index_select.default)
def spell_run(graph: Graph, node: fx.Node) -> bool:
    """index_select of consecutive positions -> slice; of all of them backwards -> flip."""
    x, axis, index = node.args
    assert isinstance(x, fx.Node)
    assert isinstance(axis, int)
    positions = _stored_index(graph, index)
    if positions is None or positions.numel() == 0:
        return False
    axis %= rank(x)
    flat = positions.flatten().tolist()
    start, count = flat[0], len(flat)
    if start >= 0 and flat == list(range(start, start + count)):
        replace_with(graph, node, aten.slice.Tensor, (x, axis, start, start + count, 1))
        return True
    if graph.shape(x)[axis] == count and flat == list(range(count))[::-1]:
        replace_with(graph, node, aten.flip.default, (x, [axis]))
        return True
    return False


@looks_at(aten.embedding.default)
def write_embedding(graph: Graph, node: fx.Node) -> bool:
    """Only table and indices; of stored indices an index_select."""
    values = arguments(node)
    table, indices = values["weight"], values["indices"]
    if is_call(indices, aten.expand.default) and _stored_index(graph, indices.args[0]) is not None:
        rewriter = Rewriter(graph, node)
        small = rewriter.call(aten.embedding.default, table, indices.args[0])
        rewriter.finish(aten.expand.default, small, [*indices.args[1], -1])
        return True
    if _stored_index(graph, indices) is not None:
        positions = _stored_index(graph, indices)
        assert positions is not None
        rewriter = Rewriter(graph, node)
        stored = rewriter.store(tensor_name(node, "index"), positions.flatten())
        rows = rewriter.call(aten.index_select.default, table, 0, stored)
        rewriter.finish(aten.reshape.default, rows, list(graph.shape(node)))
        return True
    if len(node.args) == 2 and not node.kwargs:
        return False
    node.args, node.kwargs = (table, indices), {}
    return True


_PASSES_ROWS = (
    aten.unsqueeze.default,
    aten.view.default,
    aten.reshape.default,
    aten.slice.Tensor,
)
_COUNTS = (aten.arange.default, aten.arange.start, aten.arange.start_step)


@looks_at(aten.index.Tensor)
def spell_rowwise(graph: Graph, node: fx.Node) -> bool:
    """x[arange(n)[:, None], i], i stored -> index_select(x, 1, i): the same of every sample."""
    x, indices = node.args
    assert isinstance(x, fx.Node)
    assert isinstance(indices, list | tuple)
    if len(indices) != 2 or None not in graph.shape(x)[:1] or None in graph.shape(x)[1:]:
        return False
    rows, index = indices
    positions = _stored_index(graph, index)
    if positions is None or not isinstance(rows, fx.Node) or not _counts_samples(rows, x):
        return False
    tall = graph.shape(rows)
    spread = tall[0] is None and set(tall[1:]) <= {1} and len(tall) == rank(node) - rank(x) + 2
    if not spread or positions.dtype == torch.bool:
        return False
    if positions.dim() == len(tall) and positions.shape[0] != 1:
        return False
    rewriter = Rewriter(graph, node)
    stored = rewriter.store(tensor_name(node, "index"), positions.flatten())
    picked = rewriter.call(aten.index_select.default, x, 1, stored)
    wanted = [-1 if size is None else size for size in graph.shape(node)]
    rewriter.finish(aten.reshape.default, picked, wanted)
    return True


def _counts_samples(node: fx.Node, x: fx.Node) -> bool:
    """Whether a value is arange over the axis 0 of x, perhaps with axes of size 1 added."""
    while is_call(node, *_PASSES_ROWS):
        node = node.args[0]
    if not is_call(node, *_COUNTS):
        return False
    values = arguments(node)
    starts = values.get("start", 0) == 0 and values.get("step", 1) == 1
    return starts and str(node.meta["val"].shape[0]) == str(x.meta["val"].shape[0])


INDEXING_RULES = (spell_index, spell_rowwise, spell_run, write_embedding)

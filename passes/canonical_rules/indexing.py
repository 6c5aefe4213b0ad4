"""Indexing with stored positions."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments, pair

from .rewriting import Rewriter, is_call, looks_at, rank, replace_with, reshape_sizes, tensor_name

aten = torch.ops.aten


@looks_at(aten._unsafe_index.Tensor)
def check_index(graph: Graph, node: fx.Node) -> bool:
    """torch's own rules index without a check; planish's keep every index inside its axis."""
    replace_with(graph, node, aten.index.Tensor, node.args)
    return True


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
        x = rewriter.call(aten.reshape.default, x, reshape_sizes(merged))
    stored = rewriter.store(tensor_name(node, "index"), linear.flatten())
    picked = (x, first, stored)
    if linear.dim() == 1:
        rewriter.finish(aten.index_select.default, *picked)
        return True
    selected = rewriter.call(aten.index_select.default, *picked)
    wanted = reshape_sizes(graph.shape(node))
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
    wanted = reshape_sizes(graph.shape(node))
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


@looks_at(aten.index.Tensor)
def spell_computed(graph: Graph, node: fx.Node) -> bool:
    """x[i, :, j] with computed i, j -> axes i, j first and merged, index_select, axes back.

    Stored positions that are left for it, masks apart, are read as computed ones are.
    """
    x, given = node.args
    assert isinstance(x, fx.Node)
    assert isinstance(given, list | tuple)
    indices = {axis: index for axis, index in enumerate(given) if isinstance(index, fx.Node)}
    axes, shape = list(indices), graph.shape(x)
    sizes = [shape[axis] for axis in axes]
    masks = any(graph.dtype(index) == torch.bool for index in indices.values())
    wanted = reshape_sizes(graph.shape(node))
    if not axes or masks or None in sizes or wanted.count(-1) > 1:
        return False
    rewriter = Rewriter(graph, node)
    place: Any = None
    for axis, index in indices.items():
        inside = rewriter.call(aten.remainder.Scalar, index, max(shape[axis] or 1, 1))
        if place is not None:
            place = rewriter.call(aten.mul.Tensor, place, shape[axis])
        place = inside if place is None else rewriter.call(aten.add.Tensor, place, inside)
    together = axes == list(range(axes[0], axes[-1] + 1))
    first = axes[0] if together else 0
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    order = [*rest[:first], *axes, *rest[first:]]
    whole = prod(size for size in sizes if size is not None)
    around = [-1 if shape[axis] is None else shape[axis] for axis in rest]
    merged = [*around[:first], whole, *around[first:]]
    moved = rewriter.call(aten.permute.default, x, order)
    flat = rewriter.call(aten.reshape.default, place, [-1])
    picked = rewriter.call(
        aten.index_select.default, rewriter.call(aten.reshape.default, moved, merged), first, flat
    )
    rewriter.finish(aten.reshape.default, picked, wanted)
    return True


@looks_at(aten.unfold.default)
def spell_unfold(graph: Graph, node: fx.Node) -> bool:
    """x.unfold(1, 3, 2) -> the windows' entries by index_select, each window's axis last."""
    values: dict[str, Any] = arguments(node)
    x, size = values["self"], values["size"]
    shape, axis = graph.shape(x), values["dimension"] % max(rank(x), 1)
    if not shape or shape[axis] is None or shape.count(None) > 1:
        return False
    rewriter, length = Rewriter(graph, node), graph.shape(node)[axis]
    starts = torch.arange(length or 0) * values["step"]
    positions = starts[:, None] + torch.arange(size)
    stored = rewriter.store(tensor_name(node, "index"), positions.flatten())
    picked = rewriter.call(aten.index_select.default, x, axis, stored)
    sizes = reshape_sizes(shape)
    split = [*sizes[:axis], length, size, *sizes[axis + 1 :]]
    windows = rewriter.call(aten.reshape.default, picked, split)
    order = [a for a in range(rank(x) + 1) if a != axis + 1]
    rewriter.finish(aten.permute.default, windows, [*order, axis + 1])
    return True


@looks_at(aten.im2col.default)
def spell_columns(graph: Graph, node: fx.Node) -> bool:
    """im2col -> pad, then every window's pixels by index_select, channel by channel."""
    values = arguments(node)
    x: Any = values["self"]
    if rank(x) != 4 or graph.shape(x).count(None) > 1:
        return False
    pads, steps = (list(pair(values[name])) for name in ("padding", "stride"))
    kernel, apart = (list(pair(values[name])) for name in ("kernel_size", "dilation"))
    rewriter = Rewriter(graph, node)
    if any(pads):
        frame = [pads[1], pads[1], pads[0], pads[0]]
        x = rewriter.call(aten.constant_pad_nd.default, x, frame, 0.0)
    *outer, height, width = graph.shape(x)
    assert height is not None
    assert width is not None
    rows, columns = (
        torch.arange(0, size - (k - 1) * d, s)[None, :] + torch.arange(k)[:, None] * d
        for size, k, d, s in zip((height, width), kernel, apart, steps, strict=True)
    )
    # [row of the kernel, its column, row of the windows, their column]
    positions = rows[:, None, :, None] * width + columns[None, :, None, :]
    pixels = reshape_sizes([*outer, height * width])
    flat = rewriter.call(aten.reshape.default, x, pixels)
    stored = rewriter.store(tensor_name(node, "index"), positions.flatten())
    picked = rewriter.call(aten.index_select.default, flat, 2, stored)
    wanted = reshape_sizes(graph.shape(node))
    rewriter.finish(aten.reshape.default, picked, wanted)
    return True


@looks_at(aten.take_along_dim.default)
def spell_along(graph: Graph, node: fx.Node) -> bool:
    """take_along_dim -> gather, where nothing has to be spread."""
    values = arguments(node)
    x, indices, axis = values["self"], values["indices"], values["dim"]
    if axis is None or rank(x) != rank(indices):
        return False
    axis %= rank(x)
    sizes = [str(n) for a, n in enumerate(x.meta["val"].shape) if a != axis]
    if sizes != [str(n) for a, n in enumerate(indices.meta["val"].shape) if a != axis]:
        return False
    replace_with(graph, node, aten.gather.default, (x, axis, indices))
    return True


INDEXING_RULES = (
    check_index,
    spell_index,
    spell_rowwise,
    spell_run,
    spell_computed,
    spell_unfold,
    spell_columns,
    spell_along,
    write_embedding,
)

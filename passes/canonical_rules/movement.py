"""What moves values: permutations, slices, pieces, repetitions, selection by a stored index."""

from __future__ import annotations

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
    reshape_sizes,
    same_shape,
)

aten = torch.ops.aten
# What torch.export writes where a slice has no end.
_END = 2**63 - 1

_TRANSPOSES = (aten.transpose.int, aten.swapaxes.default, aten.swapdims.default)
_MATRIX = (aten.t.default, aten.numpy_T.default, aten.mT.default, aten.adjoint.default)


@looks_at(*_TRANSPOSES, *_MATRIX, aten.movedim.intlist, aten.movedim.int, aten.moveaxis.int)
def spell_transpose(graph: Graph, node: fx.Node) -> bool:
    """transpose, t, T, mT, movedim -> permute."""
    count = rank(node)
    order = list(range(count))
    moved = [[value] if isinstance(value, int) else list(value) for value in node.args[1:]]  # type: ignore[arg-type]
    if node.target in _TRANSPOSES:
        (first,), (second,) = moved
        order[first], order[second] = order[second], order[first]
    elif moved:
        sources, places = ([axis % count for axis in axes] for axes in moved)
        rest = [axis for axis in order if axis not in sources]
        for place, source in sorted(zip(places, sources, strict=True)):
            rest.insert(place, source)
        order = rest
    elif node.target is aten.numpy_T.default:
        order.reverse()
    elif count >= 2:
        order[-2], order[-1] = order[-1], order[-2]
    replace_with(graph, node, aten.permute.default, (node.args[0], order))
    return True


@looks_at(aten.permute.default)
def merge_permutations(graph: Graph, node: fx.Node) -> bool:
    """permute(permute(x)) -> permute(x); one that moves nothing goes; axes count from 0."""
    source, axes = node.args
    assert isinstance(source, fx.Node)
    order = [axis % rank(source) for axis in axes]  # type: ignore[union-attr]
    if order == sorted(order):
        forward(graph, node, source)
        return True
    if is_call(source, aten.permute.default):
        inner: Any = source.args[1]
        node.args = (source.args[0], [inner[axis] for axis in order])
        return True
    if axes == order:
        return False
    node.update_arg(1, order)
    return True


@looks_at(aten.slice.Tensor)
def spell_slice(graph: Graph, node: fx.Node) -> bool:
    """A slice of everything is nothing; ends and negative positions become plain positions."""
    values = arguments(node)
    source: fx.Node = values["self"]
    axis = values["dim"] % len(graph.shape(source))
    size = graph.shape(source)[axis]
    start, end = values["start"] or 0, values["end"]
    everything = start == 0 and values["step"] == 1 and (end is None or end == _END)
    if everything or (size is not None and (start, end, values["step"]) == (0, size, 1)):
        forward(graph, node, source)
        return True
    if size is None or not isinstance(start, int) or not isinstance(end, int | None):
        return False
    start, end, _ = slice(start, end).indices(size)
    plain = (source, axis, start, end, values["step"])
    if node.args == plain and not node.kwargs:
        return False
    node.args, node.kwargs = plain, {}
    return True


@looks_at(
    aten.chunk.default,
    aten.split.Tensor,
    aten.split.sizes,
    aten.split_with_sizes.default,
    aten.unsafe_split.Tensor,
    aten.unsafe_chunk.default,
    aten.tensor_split.sections,
)
def spell_pieces(graph: Graph, node: fx.Node) -> bool:
    """chunk, split and split_with_sizes, read piece by piece -> one slice a piece."""
    if not is_unpacked(node):
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


@looks_at(aten.unbind.int)
def spell_unbind(graph: Graph, node: fx.Node) -> bool:
    """unbind, read piece by piece -> one select a piece."""
    if not is_unpacked(node):
        return False
    values = arguments(node)
    for user in list(node.users):
        replace_with(graph, user, aten.select.int, (values["self"], values["dim"], user.args[1]))
    graph.fx.erase_node(node)
    return True


@looks_at(aten.select.int)
def spell_select(graph: Graph, node: fx.Node) -> bool:
    """Axis and position count from 0; of a permuted value, select before permuting."""
    source, axis, index = node.args
    assert isinstance(source, fx.Node)
    assert isinstance(axis, int)
    if not isinstance(index, int):
        return False
    plain = axis % rank(source)
    size = graph.shape(source)[plain]
    position = index % size if size is not None else index
    if is_call(source, aten.permute.default):
        order: Any = source.args[1]
        rest = [a - (a > order[plain]) for i, a in enumerate(order) if i != plain]
        picked = Rewriter(graph, node).call(aten.select.int, source.args[0], order[plain], position)
        replace_with(graph, node, aten.permute.default, (picked, rest))
        return True
    if is_call(source, aten.reshape.default):
        return _select_of_split(graph, node, source, plain, position)
    if (plain, position) == (axis, index):
        return False
    node.args = (source, plain, position)
    return True


def _select_of_split(graph: Graph, node: fx.Node, split: fx.Node, axis: int, position: int) -> bool:
    """select(reshape(x, [..., k, m]), -2, i) -> slice(x, -1, i * m, (i + 1) * m)."""
    x: Any = split.args[0]
    whole, parts = graph.shape(x), graph.shape(split)
    # Two sizes stand where x has one: everything in front of them and behind is the same.
    fits = len(parts) == len(whole) + 1 and parts[:axis] == whole[:axis]
    if not fits or parts[axis + 2 :] != whole[axis + 1 :] or whole[axis] is None:
        return False
    length = parts[axis + 1]
    if length is None or parts[axis] is None:
        return False
    start = position * length
    replace_with(graph, node, aten.slice.Tensor, (x, axis, start, start + length, 1))
    return True


@looks_at(aten.stack.default)
def spell_stack(graph: Graph, node: fx.Node) -> bool:
    """stack -> unsqueeze each, cat."""
    values = arguments(node)
    axis = values["dim"] % rank(node)
    rewriter = Rewriter(graph, node)
    pieces = [rewriter.call(aten.unsqueeze.default, x, axis) for x in values["tensors"]]
    rewriter.finish(aten.cat.default, pieces, axis)
    return True


@looks_at(aten.cat.default, aten.concat.default, aten.concatenate.default)
def spell_cat(graph: Graph, node: fx.Node) -> bool:
    """concat -> cat; the axis counts from 0; of one tensor it is nothing."""
    values = arguments(node)
    pieces = list(values["tensors"])
    plain = (pieces, values["dim"] % rank(node))
    if len(pieces) == 1:
        forward(graph, node, pieces[0])
    elif node.target is aten.cat.default and tuple(node.args) == plain and not node.kwargs:
        return False
    else:
        replace_with(graph, node, aten.cat.default, plain)
    return True


@looks_at(aten.narrow.default)
def spell_narrow(graph: Graph, node: fx.Node) -> bool:
    """narrow(x, axis, start, length) -> slice."""
    x, axis, start, length = node.args
    if not isinstance(start, int) or not isinstance(length, int) or start < 0:
        return False
    replace_with(graph, node, aten.slice.Tensor, (x, axis, start, start + length, 1))
    return True


@looks_at(aten.expand.default, aten.broadcast_to.default)
def spell_expand(graph: Graph, node: fx.Node) -> bool:
    """broadcast_to -> expand; one that changes nothing goes."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if same_shape(source, node):
        forward(graph, node, source)
        return True
    sizes: Any = list(node.args[1])  # type: ignore[arg-type]
    before, after = graph.shape(source), graph.shape(node)
    plain = [size if size is not None else sizes[axis] for axis, size in enumerate(after)]
    # An open size that the source has already is written -1: no node reads it then.
    lead = len(after) - len(before)
    for axis, size in enumerate(after):
        kept = axis >= lead and size is None and before[axis - lead] is None
        if kept and str(source.meta["val"].shape[axis - lead]) == str(node.meta["val"].shape[axis]):
            plain[axis] = -1
    if node.target is aten.expand.default and sizes == plain and not node.kwargs:
        return False
    replace_with(graph, node, aten.expand.default, (source, plain))
    return True


@looks_at(aten.repeat.default, aten.tile.default)
def spell_repeat(graph: Graph, node: fx.Node) -> bool:
    """tile -> repeat; one that repeats nothing goes; along axes of size 1 it is an expand."""
    source, counts = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    assert isinstance(source, fx.Node)
    lead = rank(node) - rank(source)
    counts = [1] * (rank(node) - len(counts)) + counts
    if same_shape(source, node):
        forward(graph, node, source)
        return True
    sizes = [1] * lead + list(graph.shape(source))
    if all(count == 1 or size == 1 for count, size in zip(counts, sizes, strict=True)):
        spread = [-1 if count == 1 else count for count in counts]
        spread = [1 if i < lead and count == 1 else spread[i] for i, count in enumerate(counts)]
        replace_with(graph, node, aten.expand.default, (source, spread))
        return True
    if node.target is aten.repeat.default:
        return False
    replace_with(graph, node, aten.repeat.default, (source, counts))
    return True


@looks_at(aten.repeat_interleave.self_int)
def spell_interleave(graph: Graph, node: fx.Node) -> bool:
    """repeat_interleave(x, n, axis) -> unsqueeze, expand, reshape."""
    values = arguments(node)
    x, count, axis = values["self"], values["repeats"], values["dim"]
    sizes = list(graph.shape(node))
    if not isinstance(count, int) or axis is None or sizes.count(None) > 1:
        return False
    axis %= rank(x)
    rewriter = Rewriter(graph, node)
    apart = rewriter.call(aten.unsqueeze.default, x, axis + 1)
    spread = [-1] * (rank(x) + 1)
    spread[axis + 1] = count
    apart = rewriter.call(aten.expand.default, apart, spread)
    rewriter.finish(aten.reshape.default, apart, reshape_sizes(sizes))
    return True


@looks_at(aten.roll.default, aten.flip.default)
def write_rolled(graph: Graph, node: fx.Node) -> bool:
    """Axes count from 0, shifts lie within their axes; one that moves nothing goes."""
    values = arguments(node)
    x: Any = values["self"]
    axes = [axis % rank(x) for axis in values["dims"]]
    if node.target is aten.flip.default:
        args: Any = (x, axes)
    else:
        if not axes:
            return False
        sizes = [graph.shape(x)[axis] for axis in axes]
        shifts = [s if n is None else s % n for s, n in zip(values["shifts"], sizes, strict=True)]
        kept = [(s, a) for s, a in zip(shifts, axes, strict=True) if s]
        args = (x, [s for s, _ in kept], [a for _, a in kept])
        axes = args[2]
    if not axes:
        forward(graph, node, x)
        return True
    if tuple(node.args) == args and not node.kwargs:
        return False
    node.args, node.kwargs = args, {}
    return True


@looks_at(aten.channel_shuffle.default)
def spell_channel_shuffle(graph: Graph, node: fx.Node) -> bool:
    """channel_shuffle -> reshape, permute, reshape."""
    values = arguments(node)
    x, groups = values["self"], values["groups"]
    channels, *rest = graph.shape(x)[1:]
    assert channels is not None
    rewriter = Rewriter(graph, node)
    split = rewriter.call(aten.reshape.default, x, [-1, groups, channels // groups, *rest])
    order = [0, 2, 1, *range(3, rank(x) + 1)]
    moved = rewriter.call(aten.permute.default, split, order)
    rewriter.finish(aten.reshape.default, moved, [-1, channels, *rest])
    return True


MOVEMENT_RULES = (
    spell_transpose,
    merge_permutations,
    spell_slice,
    spell_pieces,
    spell_unbind,
    spell_select,
    spell_stack,
    spell_cat,
    spell_narrow,
    spell_expand,
    spell_repeat,
    spell_interleave,
    write_rolled,
    spell_channel_shuffle,
)

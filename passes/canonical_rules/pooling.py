"""Pools and upsampling."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments

from .rewriting import Rewriter, forward, looks_at, rank, replace_with

aten = torch.ops.aten

_WITH_INDICES = {
    aten.max_pool2d_with_indices.default: aten.max_pool2d.default,
    aten.max_pool1d_with_indices.default: aten.max_pool1d.default,
}


@looks_at(*_WITH_INDICES)
def drop_indices(graph: Graph, node: fx.Node) -> bool:
    """max_pool_with_indices of which only the values are read -> max_pool."""
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return False
    for user in list(node.users):
        replace_with(graph, user, _WITH_INDICES[node.target], node.args)  # type: ignore[index]
    graph.fx.erase_node(node)
    return True


@looks_at(aten.adaptive_max_pool2d.default, aten.adaptive_max_pool1d.default)
def spell_adaptive_max(graph: Graph, node: fx.Node) -> bool:
    """adaptive_max_pool -> max_pool2d where the windows are alike, else piece by piece."""
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return False
    (user,) = node.users
    signal = node.target is aten.adaptive_max_pool1d.default
    rewriter = Rewriter(graph, user)
    x: Any = node.args[0]
    if rank(x) != (3 if signal else 4):
        return False
    sizes = graph.shape(user)[2:]
    if signal:
        x, sizes = rewriter.call(aten.unsqueeze.default, x, 2), (1, *sizes)
    for axis, wanted in zip((2, 3), sizes, strict=True):
        size = graph.shape(x)[axis]
        assert size is not None
        assert wanted is not None
        x = _shrink(rewriter, x, axis, size, wanted)
    if signal:
        x = rewriter.call(aten.squeeze.dims, x, [2])
    rewriter.become(x)
    graph.fx.erase_node(node)
    return True


def _shrink(rewriter: Rewriter, x: fx.Node, axis: int, size: int, wanted: int) -> fx.Node:
    """Take the largest of each of torch's adaptive windows along one axis."""
    if size == wanted:
        return x
    windows = [(i * size // wanted, -(-(i + 1) * size // wanted)) for i in range(wanted)]

    def pool(value: fx.Node, length: int, stride: int) -> fx.Node:
        kernel, step = [1, 1], [1, 1]
        kernel[axis - 2], step[axis - 2] = length, stride
        args = (kernel, step, [0, 0], [1, 1], False)
        return rewriter.call(aten.max_pool2d.default, value, *args)

    lengths = {end - start for start, end in windows}
    steps = {windows[i + 1][0] - windows[i][0] for i in range(wanted - 1)}
    if len(lengths) == 1 and len(steps) <= 1 and windows[-1][1] == size:
        (length,) = lengths
        return pool(x, length, max(steps, default=length))
    pieces = [
        pool(rewriter.call(aten.slice.Tensor, x, axis, start, end, 1), end - start, end - start)
        for start, end in windows
    ]
    return rewriter.call(aten.cat.default, pieces, axis)


@looks_at(aten.adaptive_avg_pool2d.default)
def drop_pool_of_one(graph: Graph, node: fx.Node) -> bool:
    """An adaptive pool to the size that there is already: nothing."""
    x = node.args[0]
    assert isinstance(x, fx.Node)
    if graph.shape(x)[2:] != graph.shape(node)[2:] or rank(x) != 4:
        return False
    forward(graph, node, x)
    return True


_NEAREST = (aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default)
_LINEAR = (aten.upsample_bilinear2d.vec, aten.upsample_bilinear2d.default)


@looks_at(*_NEAREST, *_LINEAR)
def spell_upsampling(graph: Graph, node: fx.Node) -> bool:
    """The size written out; a scale only where it decides which pixels are read."""
    values = arguments(node)
    x: Any = values.get("input", values.get("self"))
    before, after = graph.shape(x)[2:], graph.shape(node)[2:]
    assert None not in before
    assert None not in after
    if before == after:
        forward(graph, node, x)
        return True
    aligned: tuple[Any, ...] = (values["align_corners"],) if node.target in _LINEAR else ()
    scales = values.get("scale_factors")
    scales = [values.get("scales_h"), values.get("scales_w")] if scales is None else list(scales)
    # A scale that is the quotient of the sizes says nothing more.
    told = [
        None if scale is None or scale == new / old else scale  # type: ignore[operator]
        for scale, new, old in zip(scales, after, before, strict=True)
    ]
    told = told if told != [None, None] and aligned != (True,) else []
    target = _LINEAR[1] if node.target in _LINEAR else _NEAREST[1]
    args = (x, list(after), *aligned, *told)
    if node.target is target and tuple(node.args) == args and not node.kwargs:
        return False
    replace_with(graph, node, target, args)
    return True


POOLING_RULES = (drop_indices, spell_adaptive_max, drop_pool_of_one, spell_upsampling)

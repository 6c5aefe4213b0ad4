"""Convolutions and the padding in front of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments, pair, set_argument

from .rewriting import Rewriter, forward, is_call, looks_at, rank, replace_with

aten = torch.ops.aten

_BY_RANK = {
    (3, False): aten.conv1d.default,
    (4, False): aten.conv2d.default,
    (5, False): aten.conv3d.default,
    (3, True): aten.conv_transpose1d.default,
    (4, True): aten.conv_transpose2d.input,
    (5, True): aten.conv_transpose3d.input,
}


@looks_at(aten.convolution.default)
def spell_convolution(graph: Graph, node: fx.Node) -> bool:
    """convolution -> conv1d, conv2d, conv3d or the transposed one."""
    values = arguments(node)
    target = _BY_RANK.get((rank(node), values["transposed"]))
    if target is None:
        return False
    operands = (values["input"], values["weight"], values["bias"])
    stride, padding, dilation = (list(values[k]) for k in ("stride", "padding", "dilation"))
    groups = values["groups"]
    if values["transposed"]:
        sizes = (stride, padding, list(values["output_padding"]), groups, dilation)
    else:
        sizes = (stride, padding, dilation, groups)
    replace_with(graph, node, target, (*operands, *sizes))
    return True


@looks_at(aten.conv2d.padding)
def spell_padding_word(graph: Graph, node: fx.Node) -> bool:
    """conv2d with "same" or "valid" -> with numbers; a lopsided "same" -> constant_pad_nd."""
    values = arguments(node)
    if rank(node) != 4:
        return False
    kernel = values["weight"].meta["val"].shape[2:]
    dilation = list(pair(values["dilation"]))
    totals = [dilation[axis] * (int(kernel[axis]) - 1) for axis in range(2)]
    padding = [0, 0] if values["padding"] == "valid" else [total // 2 for total in totals]
    x = values["input"]
    if values["padding"] == "same" and any(total % 2 for total in totals):
        after = [total - total // 2 for total in totals]
        amounts = [padding[1], after[1], padding[0], after[0]]
        x = Rewriter(graph, node).call(aten.constant_pad_nd.default, x, amounts, 0.0)
        padding = [0, 0]
    operands = (x, values["weight"], values["bias"])
    sizes = (list(pair(values["stride"])), padding, dilation, values["groups"])
    replace_with(graph, node, aten.conv2d.default, (*operands, *sizes))
    return True


@looks_at(aten.conv2d.default, aten.max_pool2d.default, aten.avg_pool2d.default)
def add_batch_axis(graph: Graph, node: fx.Node) -> bool:
    """An image without a batch axis gets one, and loses it again."""
    x = node.args[0]
    assert isinstance(x, fx.Node)
    if rank(x) != 3:
        return False
    rewriter = Rewriter(graph, node)
    image = rewriter.call(aten.unsqueeze.default, x, 0)
    result = rewriter.call(node.target, image, *node.args[1:])
    result.meta["origin"] = node.meta["origin"]
    rewriter.finish(aten.squeeze.dims, result, [0])
    return True


@looks_at(aten.conv_transpose2d.input, aten.conv_transpose3d.input, aten.conv3d.default)
def write_convolution(graph: Graph, node: fx.Node) -> bool:
    """Every argument written out, positionally, one size an axis."""
    del graph
    values = arguments(node)
    axes = 2 if node.target is aten.conv_transpose2d.input else 3
    for name in ("stride", "padding", "output_padding", "dilation"):
        if name in values:
            size = [values[name]] if isinstance(values[name], int) else list(values[name])
            values[name] = size * axes if len(size) == 1 else size
    full = tuple(values.values())
    written = tuple(list(a) if isinstance(a, tuple | list) else a for a in node.args)
    if written == full and not node.kwargs:
        return False
    node.args, node.kwargs = full, {}
    return True


_PADS = {
    ("reflect", 1): aten.reflection_pad1d.default,
    ("reflect", 2): aten.reflection_pad2d.default,
    ("replicate", 1): aten.replication_pad1d.default,
    ("replicate", 2): aten.replication_pad2d.default,
}


@looks_at(aten.pad.default)
def spell_pad(graph: Graph, node: fx.Node) -> bool:
    """pad -> constant_pad_nd, reflection_pad, replication_pad; circular -> cat of slices."""
    values = arguments(node)
    mode, amounts = values["mode"], list(values["pad"])
    if mode == "constant":
        fill = 0.0 if values["value"] is None else values["value"]
        args = (node.args[0], amounts, fill)
        replace_with(graph, node, aten.constant_pad_nd.default, args)
        return True
    if mode == "circular":
        return _wrap(graph, node, amounts)
    target = _PADS.get((mode, len(amounts) // 2))
    if target is None:
        return False
    replace_with(graph, node, target, (node.args[0], amounts))
    return True


def _wrap(graph: Graph, node: fx.Node, amounts: list[int]) -> bool:
    x: Any = node.args[0]
    rewriter = Rewriter(graph, node)
    for index, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), 1):
        axis = rank(x) - index
        size = graph.shape(x)[axis]
        if size is None or min(before, after) < 0:
            return False
        pieces = [x]
        if before:
            start = (axis, size - before, size, 1)
            pieces.insert(0, rewriter.call(aten.slice.Tensor, x, *start))
        if after:
            pieces.append(rewriter.call(aten.slice.Tensor, x, axis, 0, after, 1))
        x = rewriter.call(aten.cat.default, pieces, axis)
    rewriter.become(x)
    return True


@looks_at(aten.constant_pad_nd.default)
def write_pad(graph: Graph, node: fx.Node) -> bool:
    """Axes that get nothing at the end of the list go; a pad of nothing goes."""
    values = arguments(node)
    amounts = list(values["pad"])
    while amounts and not any(amounts[-2:]):
        amounts = amounts[:-2]
    if not amounts:
        forward(graph, node, values["self"])
        return True
    full = (values["self"], amounts, values["value"])
    if tuple(node.args) == full and not node.kwargs:
        return False
    node.args, node.kwargs = full, {}
    return True


@looks_at(aten.conv2d.default)
def merge_pad(graph: Graph, node: fx.Node) -> bool:
    """conv2d(constant_pad_nd(x, zeros, the same on both sides)) -> conv2d(x), padded by itself."""
    source = node.args[0]
    if not is_call(source, aten.constant_pad_nd.default):
        return False
    assert isinstance(source, fx.Node)
    amounts = arguments(source)
    left, right, top, bottom = (*amounts["pad"], 0, 0, 0, 0)[:4]
    even = left == right >= 0 and top == bottom >= 0 and not any(amounts["pad"][4:])
    if not even or amounts["value"] != 0 or len(graph.shape(source)) != 4:
        return False
    vertical, horizontal = pair(arguments(node)["padding"])
    set_argument(node, "padding", [vertical + top, horizontal + left])
    node.update_arg(0, source.args[0])
    return True


CONVOLUTION_RULES = (
    spell_convolution,
    spell_padding_word,
    add_batch_axis,
    write_convolution,
    spell_pad,
    write_pad,
    merge_pad,
)

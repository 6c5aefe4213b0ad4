"""Signals [n, channels, length] become images of one row: [n, channels, 1, length]."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.infer import infer_node
from planish.ir.ops import Quantization, activations, arguments, has_row, is_overload, row

from .rewriting import Rewriter, is_call, looks_at, rank, replace_with, tensor_name

aten = torch.ops.aten

# The axis of a signal's image that has size 1.
_ROW = 2


class _Image:
    """Rewrites one node on a signal as one on an image."""

    def __init__(self, graph: Graph, node: fx.Node, x: fx.Node) -> None:
        self.rewriter = Rewriter(graph, node)
        self.x = self.rewriter.call(aten.unsqueeze.default, x, _ROW)

    def finish(self, target: Any, *args: Any) -> bool:
        """Call the operator on the image; squeeze its result."""
        result = self.rewriter.call(target, self.x, *args)
        result.meta["origin"] = self.rewriter.node.meta["origin"]
        self.rewriter.finish(aten.squeeze.dims, result, [_ROW])
        return True


def _wide(value: Any, lead: int) -> list[int]:
    """A size along the signal -> [lead, size]."""
    return [lead, int(value[0] if isinstance(value, list | tuple) else value)]


@looks_at(aten.conv1d.default, aten.conv_transpose1d.default, aten.conv1d.padding)
def spell_convolution(graph: Graph, node: fx.Node) -> bool:
    """conv1d -> conv2d of height 1, its weight stored as [out, in, 1, k]."""
    values = arguments(node)
    if rank(values["input"]) != 3:
        return False
    stride, dilation = _wide(values["stride"], 1), _wide(values["dilation"], 1)
    padding = values["padding"]
    if isinstance(padding, str):
        reach = dilation[1] * (values["weight"].meta["val"].shape[-1] - 1)
        if padding == "same" and reach % 2:
            pad = (values["input"], [reach // 2, reach - reach // 2], 0.0)
            values["input"] = Rewriter(graph, node).call(aten.constant_pad_nd.default, *pad)
        padding = 0 if padding == "valid" or reach % 2 else reach // 2
    image = _Image(graph, node, values["input"])
    operands = (_planar_weight(graph, node, values["weight"]), values["bias"])
    sizes = (stride, _wide(padding, 0))
    if node.target is aten.conv_transpose1d.default:
        rest = (_wide(values["output_padding"], 0), values["groups"], dilation)
        return image.finish(aten.conv_transpose2d.input, *operands, *sizes, *rest)
    return image.finish(aten.conv2d.default, *operands, *sizes, dilation, values["groups"])


def _planar_weight(graph: Graph, node: fx.Node, weight: fx.Node) -> fx.Node:
    """Return a weight with a row axis; a stored one is stored so, if only signals read it."""
    if weight.op != "get_attr":
        return Rewriter(graph, node).call(aten.unsqueeze.default, weight, _ROW)
    if rank(weight) == 4:
        return weight
    name = str(weight.target)
    places = [n for n in graph.nodes if n.op == "get_attr" and n.target == name]
    readers = {user for place in places for user in place.users}
    value = graph.attribute(name)
    wide = value.unsqueeze(_ROW)
    if all(is_call(reader, node.target) for reader in readers):
        graph.set_attribute(name, wide, trainable=value.requires_grad)
        for place in places:
            infer_node(place, graph.module)
        return weight
    rewriter = Rewriter(graph, node)
    return rewriter.store(tensor_name(node, "weight"), wide, trainable=value.requires_grad)


@looks_at(aten.max_pool1d.default, aten.avg_pool1d.default)
def spell_pool(graph: Graph, node: fx.Node) -> bool:
    """max_pool1d, avg_pool1d -> their 2-D kin."""
    values = arguments(node)
    if rank(values["self"]) != 3:
        return False
    kernel, padding = _wide(values["kernel_size"], 1), _wide(values["padding"], 0)
    stride = _wide(values["stride"] or values["kernel_size"], 1)
    image = _Image(graph, node, values["self"])
    if node.target is aten.max_pool1d.default:
        rest = (_wide(values["dilation"], 1), values["ceil_mode"])
        return image.finish(aten.max_pool2d.default, kernel, stride, padding, *rest)
    rest = (values["ceil_mode"], values["count_include_pad"])
    return image.finish(aten.avg_pool2d.default, kernel, stride, padding, *rest)


_ADAPTIVE = {
    aten.adaptive_avg_pool1d.default: aten.adaptive_avg_pool2d.default,
    aten.upsample_nearest1d.default: aten.upsample_nearest2d.default,
}


@looks_at(*_ADAPTIVE)
def spell_adaptive(graph: Graph, node: fx.Node) -> bool:
    """adaptive_avg_pool1d, upsample_nearest1d -> their 2-D kin."""
    x: Any = node.args[0]
    length = graph.shape(node)[-1]
    if rank(x) != 3 or length is None:
        return False
    return _Image(graph, node, x).finish(_ADAPTIVE[node.target], [1, length])  # type: ignore[index]


@looks_at(aten.upsample_linear1d.default, aten.upsample_linear1d.vec)
def spell_linear_upsampling(graph: Graph, node: fx.Node) -> bool:
    """upsample_linear1d -> upsample_bilinear2d."""
    values = arguments(node)
    x: fx.Node = values["input"] if "input" in values else values["self"]
    sizes = [1, graph.shape(node)[-1]]
    image = _Image(graph, node, x)
    scale = values.get("scales")
    if values.get("scale_factors"):
        scale = values["scale_factors"][0]
    rest = (values["align_corners"], None, scale)
    return image.finish(aten.upsample_bilinear2d.default, sizes, *rest)


@looks_at(aten.reflection_pad1d.default, aten.replication_pad1d.default)
def spell_pad(graph: Graph, node: fx.Node) -> bool:
    """reflection_pad1d, replication_pad1d -> their 2-D kin, nothing above and below."""
    x, amounts = node.args
    assert isinstance(x, fx.Node)
    target = {
        aten.reflection_pad1d.default: aten.reflection_pad2d.default,
        aten.replication_pad1d.default: aten.replication_pad2d.default,
    }[node.target]  # type: ignore[index]
    if rank(x) != 3:
        return False
    return _Image(graph, node, x).finish(target, [*amounts, 0, 0])  # type: ignore[misc]


def sink_squeeze(graph: Graph, node: fx.Node) -> bool:
    """f(squeeze(x, [2])) -> squeeze(f(x), [2]) for elementwise f: signals stay images."""
    if not is_overload(node.target) or not has_row(node.target):
        return False
    elementwise = row(node).quantization in (Quantization.TABLE, Quantization.CLAMP)
    if not elementwise and node.target not in (*_PAIRS, aten.dropout.default):
        return False
    operands = activations(node)
    if not operands or any(not _squeezed(operand) for operand in operands):
        return False
    images = {operand: operand.args[0] for operand in operands}
    args = tuple(images.get(a, a) if isinstance(a, fx.Node) else a for a in node.args)
    result = Rewriter(graph, node).call(node.target, *args)
    result.meta["origin"] = node.meta["origin"]
    replace_with(graph, node, aten.squeeze.dims, (result, [_ROW]))
    return True


_PAIRS = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor)


def _squeezed(node: fx.Node) -> bool:
    if not is_call(node, aten.squeeze.dims) or node.args[1] != [_ROW]:
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and rank(source) == 4


@looks_at(aten.cat.default)
def cat_images(graph: Graph, node: fx.Node) -> bool:
    """cat of squeezed images along channels or length -> squeeze(cat of the images)."""
    pieces, axis = node.args
    assert isinstance(pieces, list | tuple)
    if not all(isinstance(piece, fx.Node) and _squeezed(piece) for piece in pieces):
        return False
    assert isinstance(axis, int)
    images = [piece.args[0] for piece in pieces]  # type: ignore[union-attr]
    result = Rewriter(graph, node).call(node.target, images, axis if axis < _ROW else axis + 1)
    result.meta["origin"] = node.meta["origin"]
    replace_with(graph, node, aten.squeeze.dims, (result, [_ROW]))
    return True


@looks_at(aten.mean.dim)
def spell_mean(graph: Graph, node: fx.Node) -> bool:
    """mean over the length of a squeezed image -> adaptive_avg_pool2d."""
    source, axes, keepdim = (*node.args, False)[:3]
    assert isinstance(source, fx.Node)
    if not _squeezed(source) or axes not in ([2], [-1]):
        return False
    image: Any = source.args[0]
    pooled = Rewriter(graph, node).call(aten.adaptive_avg_pool2d.default, image, [1, 1])
    pooled.meta["origin"] = node.meta["origin"]
    if keepdim:
        replace_with(graph, node, aten.squeeze.dims, (pooled, [_ROW]))
    else:
        replace_with(graph, node, aten.flatten.using_ints, (pooled, 1, -1))
    return True


ONE_DIMENSIONAL_RULES = (
    spell_convolution,
    spell_pool,
    spell_adaptive,
    spell_linear_upsampling,
    spell_pad,
    sink_squeeze,
    cat_images,
    spell_mean,
)

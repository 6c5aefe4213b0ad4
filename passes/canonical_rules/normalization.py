"""Group, instance, layer and batch normalization, each spelled one way."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments

from .rewriting import Rewriter, forward, is_call, looks_at, rank, replace_with

aten = torch.ops.aten


@looks_at(aten.instance_norm.default)
def spell_instance_norm(graph: Graph, node: fx.Node) -> bool:
    """instance_norm -> group_norm of one channel a group; with stored statistics batch_norm."""
    values = arguments(node)
    x, gain, offset = values["input"], values["weight"], values["bias"]
    if not values["use_input_stats"]:
        statistics = (values["running_mean"], values["running_var"])
        rest = (False, values["momentum"], values["eps"], False)
        replace_with(graph, node, aten.batch_norm.default, (x, gain, offset, *statistics, *rest))
        return True
    channels = graph.shape(x)[1]
    args = (x, channels, gain, offset, values["eps"])
    replace_with(graph, node, aten.group_norm.default, args)
    return True


@looks_at(aten.group_norm.default, aten.layer_norm.default)
def write_norm(graph: Graph, node: fx.Node) -> bool:
    """Every argument written out, but not cuDNN's."""
    values = arguments(node)
    values.pop("cudnn_enabled", None)
    values.pop("cudnn_enable", None)
    full = tuple(list(v) if isinstance(v, tuple | list) else v for v in values.values())
    written = tuple(list(a) if isinstance(a, tuple | list) else a for a in node.args)
    if written == full and not node.kwargs:
        return False
    del graph
    node.args, node.kwargs = full, {}
    return True


_NATIVE: dict[Any, tuple[Any, int]] = {
    aten.native_layer_norm.default: (aten.layer_norm.default, 5),
    aten.native_batch_norm.default: (aten.batch_norm.default, 8),
    aten._native_batch_norm_legit_no_training.default: (aten.batch_norm.default, 7),
}


@looks_at(*_NATIVE)
def spell_native_norm(graph: Graph, node: fx.Node) -> bool:
    """native_layer_norm and native_batch_norm, of which only the result is read."""
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return False
    target, count = _NATIVE[node.target]
    args: list[Any] = list(arguments(node).values())[:count]
    if count == 7:
        args.insert(5, False)
    if target is aten.batch_norm.default:
        args.append(False)
    (user,) = node.users
    new = Rewriter(graph, node).call(target, *args)
    new.meta["origin"] = node.meta["origin"]
    forward(graph, user, new)
    graph.fx.erase_node(node)
    return True


@looks_at(aten.rms_norm.default)
def spell_rms_norm(graph: Graph, node: fx.Node) -> bool:
    """rms_norm -> x * rsqrt(mean(x ** 2) + eps) * weight."""
    values = arguments(node)
    x: Any = values["input"]
    axes = list(range(rank(x) - len(values["normalized_shape"]), rank(x)))
    epsilon = values["eps"]
    epsilon = torch.finfo(graph.dtype(x)).eps if epsilon is None else epsilon
    rewriter = Rewriter(graph, node)
    squares = rewriter.call(aten.pow.Tensor_Scalar, x, 2)
    mean = rewriter.call(aten.mean.dim, squares, axes, True)
    moved = rewriter.call(aten.add.Tensor, mean, epsilon)
    result = rewriter.call(aten.mul.Tensor, x, rewriter.call(aten.rsqrt.default, moved))
    if values["weight"] is None:
        rewriter.become(result)
    else:
        rewriter.finish(aten.mul.Tensor, result, values["weight"])
    return True


@looks_at(aten.batch_norm.default)
def norm_before_squeeze(graph: Graph, node: fx.Node) -> bool:
    """batch_norm(squeeze(x, [2])) -> squeeze(batch_norm(x), [2]), beside its convolution."""
    source = node.args[0]
    if not is_call(source, aten.squeeze.dims) or source.args[1] != [2]:
        return False
    assert isinstance(source, fx.Node)
    x = source.args[0]
    assert isinstance(x, fx.Node)
    if rank(x) != 4:
        return False
    normed = Rewriter(graph, node).call(node.target, x, *node.args[1:])
    normed.meta["origin"] = node.meta["origin"]
    replace_with(graph, node, aten.squeeze.dims, (normed, [2]))
    return True


NORMALIZATION_RULES = (
    spell_instance_norm,
    spell_native_norm,
    spell_rms_norm,
    write_norm,
    norm_before_squeeze,
)

"""One spelling an operator: synonyms, defaults, sizes as pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import arguments, is_overload, pair

from .rewriting import Rewriter, forward, looks_at, rank, replace_with

aten = torch.ops.aten

_IDENTITIES = (
    aten.alias.default,
    aten.detach.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.lift_fresh_copy.default,
    aten.positive.default,
    aten.lift_fresh.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
)
_CASTS = (
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.device,
    aten.to.other,
    aten._to_copy.default,
    aten.type_as.default,
)


@looks_at(*_IDENTITIES, *_CASTS)
def drop_identity(graph: Graph, node: fx.Node) -> bool:
    """contiguous, clone, detach, alias, a cast to the same dtype: nothing; casts -> to.dtype."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return False
    if node.target in _CASTS and graph.dtype(node) != graph.dtype(source):
        if node.target is aten.to.dtype and len(node.args) == 2 and not node.kwargs:
            return False
        replace_with(graph, node, aten.to.dtype, (source, graph.dtype(node)))
        return True
    forward(graph, node, source)
    return True


def drop_assertion(graph: Graph, node: fx.Node) -> bool:
    """Run-time checks that torch.export leaves: shapes are verified by planish itself."""
    name = str(node.target)
    if node.users or not name.startswith(("aten._assert", "aten.sym_constrain")):
        return False
    graph.fx.erase_node(node)
    return True


def spell_clamp(graph: Graph, node: fx.Node) -> bool:
    """relu6, hardtanh, clamp_min, clamp_max -> clamp; clamp(x, 0) -> relu."""
    values = arguments(node) if is_overload(node.target) else {}
    if node.target is aten.hardtanh.default:
        bounds = (float(values["min_val"]), float(values["max_val"]))
    elif node.target is aten.relu6.default:
        bounds = (0.0, 6.0)
    elif node.target is aten.clamp_min.default:
        bounds = (values["min"], None)
    elif node.target is aten.clamp_max.default:
        bounds = (None, values["max"])
    elif node.target is aten.clamp.default and values["min"] == 0 and values["max"] is None:
        replace_with(graph, node, aten.relu.default, (node.args[0],))
        return True
    else:
        return False
    replace_with(graph, node, aten.clamp.default, (node.args[0], *bounds))
    return True


@looks_at(
    aten.threshold.default,
    aten.glu.default,
    aten.prelu.default,
    aten._prelu_kernel.default,
    aten.rrelu.default,
)
def spell_activation(graph: Graph, node: fx.Node) -> bool:
    """threshold(x, 0, 0) -> relu; glu, prelu and rrelu -> what they are made of."""
    values = arguments(node)
    x: Any = values["self"]
    rewriter = Rewriter(graph, node)
    if node.target is aten.threshold.default:
        if (values["threshold"], values["value"]) != (0, 0):
            return False
        rewriter.finish(aten.relu.default, x)
    elif node.target is aten.rrelu.default:
        rewriter.finish(aten.leaky_relu.default, x, (values["lower"] + values["upper"]) / 2)
    elif node.target is aten.glu.default:
        first, second = (
            rewriter.call(aten.slice.Tensor, x, *piece)
            for piece in _halves(graph, x, values["dim"])
        )
        gate = rewriter.call(aten.sigmoid.default, second)
        rewriter.finish(aten.mul.Tensor, first, gate)
    else:
        slope = values["weight"]
        if rank(x) > 2 and graph.shape(slope) != (1,) and rank(slope) == 1:
            sizes = [1, -1, *[1] * (rank(x) - 2)]
            slope = rewriter.call(aten.reshape.default, slope, sizes)
        below = rewriter.call(aten.clamp.default, x, None, 0.0)
        steep = rewriter.call(aten.mul.Tensor, below, slope)
        rewriter.finish(aten.add.Tensor, rewriter.call(aten.relu.default, x), steep)
    return True


def _halves(graph: Graph, x: fx.Node, axis: int) -> list[tuple[int, int, int, int]]:
    axis %= rank(x)
    size = graph.shape(x)[axis]
    assert size is not None
    return [(axis, 0, size // 2, 1), (axis, size // 2, size, 1)]


# Arguments that are written out in full, and those among them that are pairs.
_WRITTEN: dict[Any, tuple[str, ...]] = {
    aten.conv2d.default: ("stride", "padding", "dilation"),
    aten.max_pool2d.default: ("kernel_size", "stride", "padding", "dilation"),
    aten.avg_pool2d.default: ("kernel_size", "stride", "padding"),
    aten.adaptive_avg_pool2d.default: ("output_size",),
    aten.batch_norm.default: (),
    aten.linear.default: (),
    aten.leaky_relu.default: (),
    aten.elu.default: (),
    aten.flatten.using_ints: (),
    aten.clamp.default: (),
}


def write_defaults(graph: Graph, node: fx.Node) -> bool:
    """Write every argument out, positionally, sizes as pairs."""
    del graph
    pairs = _WRITTEN.get(node.target)
    if pairs is None:
        return False
    values = arguments(node)
    if "stride" in pairs and not values["stride"]:
        values["stride"] = values["kernel_size"]  # torch's default for pools
    for name in pairs:
        values[name] = list(pair(values[name]))
    full = tuple(list(v) if isinstance(v, tuple | list) else v for v in values.values())
    written = tuple(list(a) if isinstance(a, tuple | list) else a for a in node.args)
    if written == full and not node.kwargs:
        return False
    node.args, node.kwargs = full, {}
    return True


@looks_at(aten.diagonal_copy.default)
def drop_copy(graph: Graph, node: fx.Node) -> bool:
    """diagonal_copy -> diagonal: values don't say whose memory they are in."""
    replace_with(graph, node, aten.diagonal.default, node.args)
    return True


@looks_at(aten.gelu.default)
def write_gelu(graph: Graph, node: fx.Node) -> bool:
    """The usual form has no argument; the one by tanh says so."""
    del graph
    if node.kwargs != {"approximate": "none"}:
        return False
    node.kwargs = {}
    return True


SPELLING_RULES = (
    drop_identity,
    drop_assertion,
    spell_clamp,
    spell_activation,
    drop_copy,
    write_gelu,
    write_defaults,
)

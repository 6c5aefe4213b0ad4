"""fold-batch-norm: a batch norm becomes part of the convolution or linear layer beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.history import Refused
from planish.ir.level import Level, Numerics
from planish.ir.ops import arguments, set_argument, stored
from planish.ir.origin import get_origin

from .base import Pass, PassResult
from .context import Context
from .parameters.fold_parameters import fold_parameters

aten = torch.ops.aten
_LAYERS = (aten.conv2d.default, aten.linear.default)


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Fold inference-time batch norm into the weights of its neighbour.

    Rewrite:
        %c = conv2d(%x, @w, @b, ...); %n = batch_norm(%c, ...)  ->  %c = conv2d(%x, @w', @b', ...)
        %n = batch_norm(%x, ...); %c = conv2d(%n, @w, @b, ...)  ->  %c = conv2d(%x, @w', @b', ...)
        with w' = w * s, b' = beta + (b - mean) * s, s = gamma / sqrt(var + eps) in the first case;
        the same for linear, depthwise and grouped convolution.
        %n = batch_norm(%x, ...) of images, elsewhere  ->  %n = conv2d(%x, @s, @t, groups=channels)
        a depthwise 1x1 convolution, exact in float64, that integer kernels know.

    Checks (each leaves the batch norm, with the reason):
        training mode, or no running statistics; other axes than images' where the layer's result is
        read elsewhere, the weight is shared, or neither neighbour is a convolution or linear layer.
        In front of a convolution that pads, whose zeros would not pass through the shift, a batch
        norm becomes a convolution of its own.

    Source:
        Jacob et al. 2018, section 3.2 and equation 14.
    """

    name: ClassVar[str] = "fold-batch-norm"
    requires: ClassVar[tuple[Level, ...]] = (Level.CANONICAL,)
    ensures: ClassVar[Level | None] = Level.CANONICAL
    preserves: ClassVar[Numerics] = Numerics.CLOSE

    def run(self, graph: Graph, context: Context) -> PassResult:
        """Fold every batch norm that can be, backwards before forwards."""
        del context
        stored = fold_parameters(graph)
        refused: list[Refused] = []
        folded = kept = 0
        for node in graph.calls:
            if node.target is not aten.batch_norm.default:
                continue
            reason = _fold(graph, node)
            if reason is None:
                folded += 1
            elif _is_settled(node) and len(graph.shape(node)) == 4:
                _become_convolution(graph, node)
                kept += 1
            else:
                refused.append(Refused(get_origin(node).name, reason))
        changed = stored + folded + kept > 0
        if changed:
            graph.prune_dead().infer()
        notes = {"folded": folded, "convolutions": kept}
        return PassResult(graph, changed, tuple(refused), notes)


@dataclass(frozen=True)
class _Affine:
    """y = x * scale + shift, one entry a channel, float64."""

    scale: torch.Tensor
    shift: torch.Tensor


def _fold(graph: Graph, norm: fx.Node) -> str | None:
    """Fold one batch norm; return the reason if it can't be."""
    values = arguments(norm)
    if values["running_mean"] is None or values["running_var"] is None:
        return "it has no running statistics, so that its result depends on the batch"
    if values["training"]:
        return "it is in training mode; call graph.eval() first"
    affine = _affine(graph, values)
    before: Any = values["input"]
    if before.target in _LAYERS:
        reason = _blocked(graph, before, norm)
        if reason is None:
            _fold_into_outputs(graph, before, norm, affine)
        return reason
    return _try_forwards(graph, norm, affine, before)


def _is_settled(norm: fx.Node) -> bool:
    """Whether a batch norm is a fixed function of each value."""
    values = arguments(norm)
    return values["running_mean"] is not None and not values["training"]


def _become_convolution(graph: Graph, norm: fx.Node) -> None:
    """Spell a batch norm as a depthwise 1x1 convolution."""
    values = arguments(norm)
    affine = _affine(graph, values)
    channels = affine.scale.numel()
    weight = _take_over(graph, norm, "weight", affine.scale.view(channels, 1, 1, 1))
    bias = _take_over(graph, norm, "bias", affine.shift)
    with graph.fx.inserting_before(norm):
        new = graph.fx.call_function(
            aten.conv2d.default,
            (values["input"], weight, bias, [1, 1], [0, 0], [1, 1], channels),
        )
    new.meta.update(norm.meta)
    norm.replace_all_uses_with(new)
    graph.fx.erase_node(norm)


def _take_over(graph: Graph, norm: fx.Node, role: str, value: torch.Tensor) -> fx.Node:
    """Store a tensor in the place of the batch norm's own, or under a free name."""
    operand = arguments(norm)[role]
    name = stored(operand)
    trainable = name is None or graph.attribute(name).requires_grad
    if name is not None and _readers(graph, name) == [norm]:
        graph.set_attribute(name, value.float(), trainable=trainable)
        return operand
    prefix = get_origin(norm).name
    return graph.insert_tensor(f"{prefix}.{role}", value.float(), norm, trainable=trainable)


def _try_forwards(graph: Graph, norm: fx.Node, affine: _Affine, before: fx.Node) -> str | None:
    readers = list(norm.users)
    if len(readers) != 1 or readers[0].target not in _LAYERS:
        made = getattr(before.target, "_opname", before.op)
        return f"it follows {made}, and no single convolution or linear layer reads it"
    layer = readers[0]
    if arguments(layer)["input"] is not norm:
        return "it computes the weight of the layer that reads it"
    values = arguments(layer)
    if layer.target is aten.conv2d.default:
        if any(values["padding"]) and bool(affine.shift.any()):
            return "the convolution behind it pads with zeros, which the shift would miss"
    elif len(graph.shape(norm)) != 2:
        return "the linear layer behind it does not work along the channel axis"
    reason = _shared(graph, layer)
    if reason is None:
        _fold_into_inputs(graph, layer, norm, affine, before)
    return reason


def _blocked(graph: Graph, layer: fx.Node, norm: fx.Node) -> str | None:
    if len(layer.users) > 1:
        others = [get_origin(user).name for user in layer.users if user is not norm]
        return f"the result of {get_origin(layer).name} is also read by {', '.join(others)}"
    if layer.target is aten.linear.default and len(graph.shape(norm)) != 2:
        return "the linear layer in front does not work along the channel axis"
    return _shared(graph, layer)


def _shared(graph: Graph, layer: fx.Node) -> str | None:
    """Return a reason if a tensor of the layer is not stored, or is read by another node."""
    for role in ("weight", "bias"):
        operand = arguments(layer)[role]
        if operand is None:
            continue
        name = stored(operand)
        if name is None:
            return f"the {role} of {get_origin(layer).name} is computed, not stored"
        if _readers(graph, name) != [layer]:
            return f"the {role} of {get_origin(layer).name} is shared with another layer"
    return None


def _readers(graph: Graph, name: str) -> list[fx.Node]:
    """Return the nodes that read a stored tensor."""
    return [user for node in graph.nodes if stored(node) == name for user in node.users]


def _affine(graph: Graph, values: dict[str, Any]) -> _Affine:
    mean, variance = (_tensor(graph, values[k]) for k in ("running_mean", "running_var"))
    assert mean is not None
    assert variance is not None
    gamma, beta = _tensor(graph, values["weight"]), _tensor(graph, values["bias"])
    scale = 1.0 / torch.sqrt(variance + values["eps"])
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale
    return _Affine(scale, shift if beta is None else shift + beta)


def _tensor(graph: Graph, node: fx.Node | None) -> torch.Tensor | None:
    return None if node is None else graph.attribute(str(node.target)).detach().double()


def _fold_into_outputs(graph: Graph, layer: fx.Node, norm: fx.Node, affine: _Affine) -> None:
    values = arguments(layer)
    weight = _tensor(graph, values["weight"])
    assert weight is not None
    bias = _tensor(graph, values["bias"])
    start = torch.zeros_like(affine.shift) if bias is None else bias
    per_output = affine.scale.view(-1, *[1] * (weight.dim() - 1))
    _store(graph, layer, weight * per_output, affine.shift + start * affine.scale)
    norm.replace_all_uses_with(layer)
    graph.fx.erase_node(norm)


def _fold_into_inputs(
    graph: Graph, layer: fx.Node, norm: fx.Node, affine: _Affine, before: fx.Node
) -> None:
    values = arguments(layer)
    weight = _tensor(graph, values["weight"])
    assert weight is not None
    # Weight [out, in/groups, ...]: output o of group g reads the channels of group g.
    groups = values.get("groups", 1)
    out, per_group = weight.shape[:2]
    rows = torch.arange(out) // (out // groups)
    columns = rows[:, None] * per_group + torch.arange(per_group)[None, :]
    spread = (out, per_group, *[1] * (weight.dim() - 2))
    shifted = (weight * affine.shift[columns].view(spread)).flatten(1).sum(1)
    bias = _tensor(graph, values["bias"])
    _store(
        graph,
        layer,
        weight * affine.scale[columns].view(spread),
        shifted if bias is None else shifted + bias,
    )
    norm.replace_all_uses_with(before)
    graph.fx.erase_node(norm)


def _store(graph: Graph, layer: fx.Node, weight: torch.Tensor, bias: torch.Tensor) -> None:
    values = arguments(layer)
    weight_name = str(values["weight"].target)
    trainable = graph.attribute(weight_name).requires_grad
    graph.set_attribute(weight_name, weight.float(), trainable=trainable)
    if values["bias"] is not None:
        graph.set_attribute(str(values["bias"].target), bias.float(), trainable=trainable)
        return
    prefix = weight_name.removesuffix("weight")
    node = graph.insert_tensor(f"{prefix}bias", bias.float(), layer, trainable=trainable)
    set_argument(layer, "bias", node)

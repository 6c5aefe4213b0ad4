"""How much a unit of channels matters: the criteria of channel pruning.

Every criterion gives each channel of each layer a number, and a unit the sum over all channels that
it is made of, in whatever layers they lie (Fang et al., "DepGraph", CVPR 2023, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from planish.ir.errors import PassError
from planish.ir.graph import Graph
from planish.ir.ops import (
    Channels,
    activations,
    arguments,
    follows_mode,
    is_training,
    row,
    set_training,
    stored,
)

from ..context import Context
from ..training.objective import task_loss
from .channel_groups import ChannelGroups, Layer, first_names

Scores = NDArray[np.float64]
PURPOSE = "prune-channels with importance 'taylor'"


def weight_norms(graph: Graph, groups: ChannelGroups, order: int) -> Scores:
    """Sum the L1 or L2 norms of the filters that make a unit's channels.

    Source: Li et al., "Pruning Filters for Efficient ConvNets" (ICLR 2017), section 3.1.
    """
    scores = np.zeros(groups.count)
    for layer in groups.layers:
        weight = graph.attribute(str(arguments(layer.node)["weight"].target)).detach()
        axis = dict(row(layer.node).parameters)["weight"]
        rows = weight.movedim(axis, 0).flatten(1).to(torch.float64)
        np.add.at(scores, layer.units, torch.linalg.vector_norm(rows, order, dim=1).numpy())
    return scores


def batch_norm_scales(graph: Graph, groups: ChannelGroups) -> Scores:
    """Sum the absolute scales by which batch norms multiply a unit's channels; NaN without any.

    Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming"
    (ICCV 2017), section 3.
    """
    scores, names = np.full(groups.count, np.nan), first_names(graph)
    read = [
        stored(arguments(node).get("weight"))
        for node in graph.calls
        if row(node).channels is Channels.NORMALIZES
    ]
    scales = {names[name] for name in read if name is not None}
    for cut in groups.cuts:
        if cut.tensor not in scales:
            continue
        scale = graph.attribute(cut.tensor).detach().abs().to(torch.float64).numpy()
        scores[cut.units] = np.nan_to_num(scores[cut.units])
        np.add.at(scores, cut.units, scale)
    return scores


def first_order_taylor(
    graph: Graph, groups: ChannelGroups, context: Context, batches: int
) -> Scores:
    """Return the squared change of the loss, to first order, when a gate on a channel closes.

    A gate of 1 multiplies each layer's output, behind the batch norm where that is the only reader.
    A gate's derivative is the sum of activation times gradient over batch and positions; its square
    is averaged over at most `batches` batches, in evaluation mode.

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning" (CVPR 2019),
    equations 5 to 8, and the gates of section 3.3.

    Raises:
        DataError: No data, no labels, or labels that don't fit.
        PassError: The loss depends on no layer, or isn't finite.
    """
    scores, count = np.zeros(groups.count), 0
    with _evaluating(graph, context.device):
        gates = _gates(groups.layers, context.device)
        interpreter = _Gated(graph.module, {gate.node: gate for gate in gates})
        loss_of = task_loss(graph, context)
        stream = islice(context.labelled(graph, PURPOSE), batches)
        for batch in context.progress.track(stream, "importance", batches):
            flat = interpreter.run(*(tensor.to(context.device) for tensor in batch.inputs))
            labels = None if batch.labels is None else batch.labels.to(context.device)
            loss = loss_of(list(flat), labels)
            if not loss.requires_grad:
                raise PassError("the loss depends on no layer of the model", where=PURPOSE)
            values = [gate.value for gate in gates]
            # A layer that the loss doesn't depend on has slope 0.
            slopes = torch.autograd.grad(loss, values, materialize_grads=True)
            for gate, slope in zip(gates, slopes, strict=True):
                np.add.at(scores, gate.layer.units, slope.double().square().cpu().numpy())
            count += 1
    if not np.isfinite(scores).all():
        raise PassError(
            "the gradients of the loss are not finite",
            where=PURPOSE,
            cure="look for overflow in the model or in the loss",
        )
    return scores / max(count, 1)


class _Gate:
    """A factor of 1 for each channel that a layer makes, applied at `node`."""

    def __init__(self, layer: Layer, device: str) -> None:
        readers = list(layer.node.users)
        alone = len(readers) == 1 and readers[0].op == "call_function" and layer.axis == 1
        behind = alone and row(readers[0]).channels is Channels.NORMALIZES
        is_input = behind and activations(readers[0]) == [layer.node]
        self.layer = layer
        self.node = readers[0] if is_input else layer.node
        dtype = layer.node.meta["val"].dtype
        count = len(layer.units)
        self.value = torch.ones(count, dtype=dtype, device=device, requires_grad=True)

    def apply(self, value: torch.Tensor) -> torch.Tensor:
        sizes = [1] * value.ndim
        sizes[self.layer.axis] = -1
        return value * self.value.view(sizes)


def _gates(layers: tuple[Layer, ...], device: str) -> list[_Gate]:
    return [_Gate(layer, device) for layer in layers]


class _Gated(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, gates: dict[fx.Node, _Gate]) -> None:
        super().__init__(module)
        self._gates = gates

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        return self._gates[n].apply(value) if n in self._gates else value


@contextmanager
def _evaluating(graph: Graph, device: str) -> Iterator[None]:
    """Lend the graph to a device in evaluation mode, with gradients; then as it was."""
    following = [node for node in graph.calls if follows_mode(node)]
    modes = [is_training(node) for node in following]
    training = graph.training
    graph.eval().module.to(device)
    try:
        with torch.enable_grad():
            yield
    finally:
        graph.module.to("cpu")
        for node, mode in zip(following, modes, strict=True):
            set_training(node, mode)
        graph.module.training = training
        graph.module.recompile()


Criterion = Callable[[Graph, ChannelGroups, Context, int], Scores]
CRITERIA: dict[str, Criterion] = {
    "l1": lambda graph, groups, _, __: weight_norms(graph, groups, 1),
    "l2": lambda graph, groups, _, __: weight_norms(graph, groups, 2),
    "bn-scale": lambda graph, groups, _, __: batch_norm_scales(graph, groups),
    "taylor": first_order_taylor,
}

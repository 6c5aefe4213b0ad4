"""prune-channels: remove the channels that matter least, from every layer they touch."""

from __future__ import annotations

import fnmatch
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from planish.ir.errors import PassError, nearest, unknown
from planish.ir.graph import Graph
from planish.ir.history import Refused
from planish.ir.level import Level, Numerics
from planish.ir.ops import set_argument

from .base import Pass, PassResult, check_option
from .context import Context
from .pruning.channel_budget import NOUNS, Budget, check_target
from .pruning.channel_groups import ChannelGroups, channel_groups, first_names
from .pruning.channel_selection import Kept, select, smallest, steps, without
from .pruning.cost import cost
from .pruning.importance import CRITERIA, Scores

_RANKINGS = ("global", "group")


@dataclass(frozen=True)
class PruneChannels(Pass):
    """Remove whole channels until the model is as small as asked for.

    Channels that a residual addition, a concatenation, a depthwise convolution or a shared weight
    couples are one unit: they are ranked together and go together.

    Args:
        macs: Target, as a fraction of the multiply-accumulates before the model's first pruning
            (so that a second run changes nothing); above 1, their absolute number.
        parameters: The same for the entries of parameters.
        ratio: The fraction of all channels that may go (not protected) to remove at least.
            Exactly one of the three is given.
        importance: "l1" or "l2" (norm of the filters that make the channel), "bn-scale" (the batch
            norms' scales), "taylor" (first-order change of the loss: needs labelled data).
        ranking: "global" compares units of all layers, each by its importance over the mean of
            its group; "group" takes the same fraction from each group.
        multiple: Layers that lose channels keep a multiple of this; the target's
            `channel_multiple` by default, else 1. Layers too small for it keep their channels.
        minimum: Channels that each layer keeps at least.
        protect: Layers that keep all of their outputs: origin names, or patterns ("layers.0.*").
        batches: At most so many batches are read for "taylor".

    Rewrite (c and d of the 4 channels of "a" are the least important):
        %conv2d = conv2d(%x, @a.weight, @a.bias)          : f32[N, 4, 8, 8]
        %conv2d_1 = conv2d(%conv2d, @b.weight, @b.bias)   : f32[N, 4, 8, 8]
        ->
        %conv2d = conv2d(%x, @a.weight, @a.bias)          : f32[N, 2, 8, 8]
        %conv2d_1 = conv2d(%conv2d, @b.weight, @b.bias)   : f32[N, 4, 8, 8]
        with a.weight [4, 3, 3, 3] -> [2, 3, 3, 3], a.bias [4] -> [2], b.weight [4, 4, 3, 3] ->
        [4, 2, 3, 3].

        The result computes exactly what the model computes whose weights are zero wherever a
        convolution or linear layer reads a removed channel (in a depthwise or grouped convolution,
        whose outputs go too, wherever those are read). The mask is at the reader and not at the
        channel, because what lies between (batch norm, sigmoid) need not map zero to zero.
        Parameters stay trainable, and layers keep their origins.

    Checks:
        Channels keep still, and the report says why, where they reach an output of the model, meet
        an input of it, are read by an operator that mixes or moves channels (`Channels.FIXED` in
        the operator table), lie on another axis than their reader takes for channels, are scaled by
        a computed tensor, or are held by a stored tensor that another reader needs whole.
        An operator without a row is an OperatorError. A target that can't be met is a PassError
        that says what can; no layer is ever left empty. A name in `protect` that fits no layer is
        an OptionError.

    Source:
        Li et al., "Pruning Filters for Efficient ConvNets" (ICLR 2017); Liu et al., "Network
        Slimming" (ICCV 2017); Molchanov et al., "Importance Estimation for Neural Network Pruning"
        (CVPR 2019); units across layers: Fang et al., "DepGraph" (CVPR 2023).
    """

    name: ClassVar[str] = "prune-channels"
    requires: ClassVar[tuple[Level, ...]] = (Level.CANONICAL,)
    preserves: ClassVar[Numerics] = Numerics.CHANGES

    macs: float | None = None
    parameters: float | None = None
    ratio: float | None = None
    importance: str = "l1"
    ranking: str = "global"
    multiple: int | None = None
    minimum: int = 1
    protect: tuple[str, ...] = ()
    batches: int = 16

    def __post_init__(self) -> None:
        """Check the options; raises OptionError."""
        given = [name for name in NOUNS if getattr(self, name) is not None]
        many = f"{len(given)} targets are given: {', '.join(given)}" if given else "no target"
        cure = "give exactly one of macs, parameters and ratio"
        check_option(len(given) == 1, many, self.name, cure)
        check_target(self.name, given[0], getattr(self, given[0]))
        for what, value, known in (
            ("importance", self.importance, CRITERIA),
            ("ranking", self.ranking, _RANKINGS),
        ):
            text = f"unknown {what} {value!r}"
            check_option(value in known, text, self.name, nearest(str(value), known))
        for what in ("multiple", "minimum", "batches"):
            value = getattr(self, what)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            optional = what == "multiple" and value is None
            check_option(whole or optional, f"{what}={value!r} is not 1 or more", self.name)
        names = isinstance(self.protect, tuple) and all(isinstance(p, str) for p in self.protect)
        check_option(names, f"protect={self.protect!r} is no tuple of names", self.name)

    def run(self, graph: Graph, context: Context) -> PassResult:
        """Prune `graph`.

        Raises:
            OperatorError: An operator without a row.
            OptionError: A name in `protect` that fits no layer.
            PassError: The target can't be met.
            DataError: "taylor" without labelled data.
        """
        multiple = self.multiple
        if multiple is None:
            multiple = context.target.channel_multiple if context.target is not None else 1
        groups = self._protected(channel_groups(graph))
        scores = np.zeros(groups.count)
        if groups.layers:
            scores = CRITERIA[self.importance](graph, groups, context, self.batches)
        groups = groups.protect(_unmeasured(scores))
        budget = Budget(graph, groups, self._target(), self.name)
        ordered = steps(groups, scores, multiple, self.minimum, self.ranking)
        refused = _refused(groups, multiple, self.minimum)
        kept = select(groups, ordered, budget.fits)
        if kept is None:
            raise _unreachable(budget, budget.value(without(groups, ordered)), refused)
        before, shown = cost(graph), _layer_names(groups)
        remove(graph, groups, kept)
        after = cost(graph)
        assert after == budget.price(kept), "the price of pruning differs from what was pruned"
        channels = budget.channels(np.ones_like(kept)), budget.channels(kept)
        notes = {
            "macs": [before.macs, after.macs],
            "parameters": [before.parameters, after.parameters],
            "channels": list(channels),
            "multiple": multiple,
            "layers": {
                name: [len(layer.units), int(kept[layer.units].sum())]
                for name, layer in zip(shown, groups.layers, strict=True)
            },
        }
        return PassResult(graph, not kept.all(), refused, notes)

    def _target(self) -> tuple[str, float]:
        name = next(name for name in NOUNS if getattr(self, name) is not None)
        return name, float(getattr(self, name))

    def _protected(self, groups: ChannelGroups) -> ChannelGroups:
        names = [layer.name for layer in groups.layers]
        reasons: dict[int, str] = {}
        for pattern in self.protect:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                raise unknown(f"layer in protect of {self.name}", pattern, set(names))
            for layer in groups.layers:
                if fnmatch.fnmatchcase(layer.name, pattern):
                    reason = f"protected by the option protect={pattern!r}"
                    reasons |= dict.fromkeys(layer.units.tolist(), reason)
        return groups.protect(reasons)


def remove(graph: Graph, groups: ChannelGroups, kept: Kept) -> None:
    """Take the units without `kept[unit]` out of a graph's tensors and arguments."""
    if kept.all():
        return
    names = first_names(graph)
    for node in graph.nodes:
        if node.op == "get_attr":
            node.target = names[str(node.target)]
    for cut in groups.cuts:
        if kept[cut.units].all():
            continue
        value = graph.attribute(cut.tensor)
        indices = torch.from_numpy(np.flatnonzero(kept[cut.units]))
        smaller = value.detach().index_select(cut.axis, indices)
        graph.set_attribute(cut.tensor, smaller, trainable=isinstance(value, torch.nn.Parameter))
        graph.attribute(cut.tensor).requires_grad_(value.requires_grad)
    for node, units in groups.group_counts.items():
        set_argument(node, "groups", int(kept[units].sum()))
    graph.prune_dead().infer()


def _unmeasured(scores: Scores) -> dict[int, str]:
    """Protect what the criterion has nothing to say about; only "bn-scale" leaves any."""
    reason = "scaled by no batch norm (importance 'bn-scale')"
    return dict.fromkeys(np.flatnonzero(np.isnan(scores)).tolist(), reason)


def _refused(groups: ChannelGroups, multiple: int, minimum: int) -> tuple[Refused, ...]:
    """List, once each, the layers that keep channels for another reason than their importance."""
    too_small: dict[int, str] = {}
    for group in groups.groups:
        least, _ = smallest(groups, group, multiple, minimum)
        if least == len(group.units) and len(groups.free(group)):
            reason = f"no smaller multiple of {multiple} leaves at least {minimum} channels"
            too_small |= dict.fromkeys(group.units.tolist(), reason)
    reasons: dict[str, str] = {}
    for layer in groups.layers:
        for unit in layer.units.tolist():
            reason = groups.protected.get(unit) or too_small.get(unit)
            if reason is not None:
                reasons.setdefault(layer.name, reason)
    return tuple(Refused(name, reason) for name, reason in reasons.items())


def _unreachable(budget: Budget, least: int, refused: tuple[Refused, ...]) -> PassError:
    """Say how far pruning can go, and what holds it back."""
    noun = NOUNS[budget.kind]
    asked = f"{budget.kind}={budget.wanted:g}"
    if budget.kind == "ratio":
        most = 1 - least / budget.whole if budget.whole else 0.0
        reached = f"at most {math.floor(most * 1000) / 1000:g} of the {noun} can go"
    elif budget.whole:
        fraction = math.ceil(least / budget.whole * 1000) / 1000
        reached = f"the least is {fraction:g} of the {noun} ({least} of {budget.whole})"
    else:
        reached = f"the model has no {noun}"
    held = [f"{item.node} ({item.reason})" for item in refused[:3]]
    more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
    blocked = f"; kept whole: {', '.join(held)}{more}" if held else ""
    return PassError(
        f"{asked} can't be reached without emptying a layer: {reached}{blocked}",
        where=PruneChannels.name,
        cure="ask for less, or allow smaller `multiple` and `minimum`",
    )


def _layer_names(groups: ChannelGroups) -> list[str]:
    """Return a name for each layer; layers called twice get their node's name too."""
    names = [layer.name for layer in groups.layers]
    return [
        layer.name if names.count(layer.name) == 1 else f"{layer.name}:{layer.node.name}"
        for layer in groups.layers
    ]

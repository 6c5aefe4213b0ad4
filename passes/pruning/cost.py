"""What a graph costs: multiply-accumulates (MACs) of one sample, and entries of parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from planish.ir.graph import Graph
from planish.ir.ops import arguments, node_macs, stored

from .channel_groups import ChannelGroups, first_names


@dataclass(frozen=True)
class Cost:
    """MACs of one sample; entries of all parameters, shared ones counted once."""

    macs: int
    parameters: int


def cost(graph: Graph) -> Cost:
    """Return what a graph costs. Running statistics are buffers, and are not counted."""
    return Cost(
        macs=sum(node_macs(node) for node in graph.calls),
        parameters=sum(parameter.numel() for parameter in graph.parameters()),
    )


class PrunedCost:
    """What a graph would cost without some units: exact, at a fraction of the price of pruning.

    The MACs of a node with a weight are proportional to the entries of the weight that are left,
    as `planish.ir.ops.macs` has it; everything else keeps its cost.
    """

    def __init__(self, graph: Graph, groups: ChannelGroups) -> None:
        names = first_names(graph)
        self._axes = [(cut.tensor, cut.axis) for cut in groups.cuts]
        self._units = np.concatenate([cut.units for cut in groups.cuts] or [np.zeros(0, np.int64)])
        lengths = [len(cut.units) for cut in groups.cuts]
        self._starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        self._sizes = {name: list(graph.attribute(name).shape) for name in set(names.values())}
        self._trained = [
            name
            for name in sorted(self._sizes)
            if isinstance(graph.attribute(name), torch.nn.Parameter)
        ]
        self._macs: dict[str, int] = defaultdict(int)
        self._other_macs = 0
        for node in graph.calls:
            macs = node_macs(node)
            weight = stored(arguments(node).get("weight")) if macs else None
            if weight is None:
                self._other_macs += macs
            else:
                self._macs[names[weight]] += macs

    def __call__(self, kept: NDArray[np.bool_]) -> Cost:
        """Return the cost where only the units with `kept[unit]` are left."""
        sizes = {name: list(shape) for name, shape in self._sizes.items()}
        if self._axes:
            counts = np.add.reduceat(kept[self._units].astype(np.int64), self._starts)
            for (name, axis), count in zip(self._axes, counts.tolist(), strict=True):
                sizes[name][axis] = count
        macs = self._other_macs
        for name, whole in self._macs.items():
            macs += whole * _product(sizes[name]) // _product(self._sizes[name])
        return Cost(macs, sum(_product(sizes[name]) for name in self._trained))


def _product(sizes: Iterable[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result

"""How small a model is to become by pruning channels, and how small it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.ir.graph import Graph

from ..base import check_option
from .channel_groups import ChannelGroups
from .channel_selection import Kept
from .cost import PrunedCost

# The targets, and what each of them counts.
NOUNS = {"macs": "MACs", "parameters": "parameters", "ratio": "channels"}


class Budget:
    """What may be left of a graph, and how much is.

    Args:
        graph: Before the pruning.
        groups: Its units.
        target: One of `NOUNS`, and the number that was asked for.
        pass_name: Whose entries in the graph's history tell how large the model was at first.

    Attributes:
        kind: What is counted.
        wanted: The number that was asked for.
        whole: The count that a fraction is a fraction of.
        limit: The count that is allowed.
        price: The cost of the graph without some units.
    """

    def __init__(
        self, graph: Graph, groups: ChannelGroups, target: tuple[str, float], pass_name: str
    ) -> None:
        self.kind, self.wanted = target
        self.price = PrunedCost(graph, groups)
        free = [unit for unit in range(groups.count) if unit not in groups.protected]
        self._free: NDArray[np.bool_] = np.zeros(groups.count, dtype=np.bool_)
        self._free[free] = True
        self._layers = [layer.units for layer in groups.layers]
        self.whole = _original(graph, pass_name, self.kind) or self.value(
            np.ones(groups.count, dtype=np.bool_)
        )
        fraction = 1 - self.wanted if self.kind == "ratio" else self.wanted
        self.limit = fraction * self.whole if self.wanted <= 1 else self.wanted

    def value(self, kept: Kept) -> int:
        """Return what the budget counts, where only these units are left."""
        measures: dict[str, Callable[[Kept], int]] = {
            "macs": lambda kept: self.price(kept).macs,
            "parameters": lambda kept: self.price(kept).parameters,
            "ratio": self.channels,
        }
        return measures[self.kind](kept)

    def channels(self, kept: Kept) -> int:
        """Count the channels, of those that may go, that all layers make together."""
        alive = kept & self._free
        return sum(int(alive[units].sum()) for units in self._layers)

    def fits(self, kept: Kept) -> bool:
        """Whether the target is met, up to the rounding of the fraction itself.

        Never where there is nothing to count: a target for nothing is a mistake to report.
        """
        return self.whole > 0 and self.value(kept) <= self.limit + 1e-9 * self.whole


def _original(graph: Graph, pass_name: str, kind: str) -> int | None:
    """Return the count before the first pruning, which the graph's history remembers."""
    key = "channels" if kind == "ratio" else kind
    for entry in graph.history:
        if entry.name == pass_name and key in entry.notes:
            return int(entry.notes[key][0])
    return None


def check_target(pass_name: str, name: str, value: Any) -> None:
    """Raise OptionError unless a target is a fraction, or the absolute number that it may be."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    good = number and math.isfinite(value) and value > 0
    if good and value > 1:
        good = name != "ratio" and float(value).is_integer()
    absolute = "" if name == "ratio" else f", or a whole number of {NOUNS[name]}"
    what = f"{name}={value!r} is not a fraction above 0 and up to 1{absolute}"
    check_option(good, what, pass_name)

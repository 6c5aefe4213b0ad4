"""Which strategy computes a layer, with which knobs: the one place that decides.

In this order: a record of the tuning database, a row of the table that planish ships, the rules
(the first strategy of the registry that fits, with the first of its knobs). A record or row counts
only if its strategy fits this layer and still offers those knobs: weights decide what is exact.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from planish.ir.errors import OperatorError

from .choice import Choice
from .layer import Layer
from .lower.strategies import STRATEGIES, find_strategy
from .plan import Plan

TABLES = Path(__file__).parent / "tables"


def workload(layer: Layer, plan: Plan) -> str:
    """Return what a layer's speed depends on, as JSON in one fixed spelling.

    Equal layers of different networks have the same workload. The target is not in it: a database
    or table is for one target.
    """
    images, height, width, channels = layer.y.layout.pixels
    described = {
        "output": [images, height, width, channels],
        "in_channels": layer.in_channels,
        "kernel": list(layer.kernel),
        "stride": list(layer.stride),
        "dilation": list(layer.dilation),
        "groups": layer.groups,
        "residual": layer.residual is not None,
        "real": layer.real,
        "threads": plan.threads,
    }
    return json.dumps(described, separators=(",", ":"))


def offers(layer: Layer, plan: Plan) -> Iterator[Choice]:
    """Return every choice worth measuring for a layer, the rules' own first."""
    for name in STRATEGIES:
        strategy = find_strategy(name)
        if strategy.fits(layer, plan):
            yield from (Choice(name, knobs) for knobs in strategy.knobs(layer, plan))


def choose(layer: Layer, plan: Plan) -> Choice:
    """Return the choice for a layer.

    Raises:
        OperatorError: No strategy fits.
    """
    key = workload(layer, plan)
    for source, known in (("database", plan.database), ("table", _table(plan.target.tuned_as))):
        choice = known.find(key) if known is not None else None
        if choice is not None and _holds(choice, layer, plan):
            return Choice(choice.strategy, choice.knobs, source)
    for choice in offers(layer, plan):
        return choice
    raise OperatorError(f"no kernel strategy fits on target {plan.target.name}", where=layer.label)


def _holds(choice: Choice, layer: Layer, plan: Plan) -> bool:
    if choice.strategy not in STRATEGIES:
        return False
    strategy = find_strategy(choice.strategy)
    return strategy.fits(layer, plan) and choice.knobs in strategy.knobs(layer, plan)


class Table:
    """The choices that planish ships for one target: measured once, for common shapes."""

    def __init__(self, path: Path) -> None:
        """Read a JSON object: workload to [strategy, knobs]."""
        self._rows: dict[str, Any] = json.loads(path.read_text())

    def find(self, workload: str) -> Choice | None:
        """Return the choice for a workload, or None."""
        row = self._rows.get(workload)
        return Choice(row[0], row[1], "table") if row else None


@cache
def _table(name: str) -> Table | None:
    path = TABLES / f"{name}.json"
    return Table(path) if path.is_file() else None


def emit_layer(layer: Layer, plan: Plan) -> Choice:
    """Compute a layer in the chosen way; return the choice."""
    choice = choose(layer, plan)
    plan.layers.append((layer, choice))
    first = len(plan.steps)
    find_strategy(choice.strategy).emit(layer, plan, choice.knobs)
    _count_macs(layer, plan, first)
    return choice


def _count_macs(layer: Layer, plan: Plan, first: int) -> None:
    """Give a layer's work to the first of its steps, unless the strategy said whose it is."""
    steps = plan.steps[first:]
    if steps and not any(step.macs for step in steps):
        plan.steps[first] = replace(steps[0], macs=layer.macs)

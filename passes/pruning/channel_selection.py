"""Which units to remove: steps in order of importance until a budget is met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd, lcm

import numpy as np
from numpy.typing import NDArray

from .channel_groups import ChannelGroups, Group, Units
from .importance import Scores

Kept = NDArray[np.bool_]


@dataclass(frozen=True)
class Step:
    """Units of one group that go together, so that what is left is a good number.

    Attributes:
        group: Index of the group.
        units: What goes.
        score: Their mean importance, divided by the mean of the group's.
        removed: The fraction of the group that is gone after this step.
    """

    group: int
    units: Units
    score: float
    removed: float


def smallest(groups: ChannelGroups, group: Group, multiple: int, minimum: int) -> tuple[int, int]:
    """Return the fewest units of a group that may be left, and in which steps it shrinks to them.

    Each layer keeps at least `minimum` channels (all of them, if it has fewer), and a multiple of
    `multiple` once it loses any; a group where that is impossible keeps all of its units.
    """
    count, protected = len(group.units), len(group.units) - len(groups.free(group))
    quantum = lcm(*(multiple // gcd(multiple, each) for _, each in group.layers))
    floor = max(-(-min(minimum, count * each) // each) for _, each in group.layers)
    least = -(-max(floor, protected, 1) // quantum) * quantum
    return min(least, count), quantum


def steps(
    groups: ChannelGroups, scores: Scores, multiple: int, minimum: int, ranking: str
) -> list[Step]:
    """Return all possible removals in the order in which they should happen.

    "global" compares units by importance over the mean importance of their group, so that layers of
    different size and scale compare; "group" shrinks all groups by the same fraction, each from its
    least important unit. Ties go to the group that has lost the smaller part, then by position.
    """
    found: list[Step] = []
    for index, group in enumerate(groups.groups):
        free = groups.free(group)
        if not len(free):
            continue
        least, quantum = smallest(groups, group, multiple, minimum)
        mean = float(scores[free].mean()) or 1.0
        order = free[np.argsort(scores[free], kind="stable")]
        left, score = len(group.units), 0.0
        while left > least:
            target = max((left - 1) // quantum * quantum, least)
            units, order = order[: left - target], order[left - target :]
            left = target
            score = max(score, float(scores[units].mean()) / mean)  # rounding must not reorder
            found.append(Step(index, units, score, 1 - left / len(group.units)))
    if ranking == "group":
        return sorted(found, key=lambda step: (step.removed, step.group))
    return sorted(found, key=lambda step: (step.score, step.removed, step.group))


def select(groups: ChannelGroups, ordered: list[Step], fits: Callable[[Kept], bool]) -> Kept | None:
    """Return which units to keep: the fewest steps that fit, then back what still fits.

    Args:
        groups: The analysis.
        ordered: The steps, by `steps`.
        fits: Whether the budget holds; once it does, it must hold for fewer units too.

    Returns:
        One flag a unit, or None where the budget doesn't even hold after all steps.
    """
    if not fits(without(groups, ordered)):
        return None
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        if fits(without(groups, ordered[:middle])):
            high = middle
        else:
            low = middle + 1
    kept = without(groups, ordered[:low])
    stuck: set[int] = set()
    for step in reversed(ordered[:low]):
        if step.group in stuck:
            continue
        kept[step.units] = True
        if not fits(kept):
            kept[step.units] = False
            stuck.add(step.group)
    return kept


def without(groups: ChannelGroups, removed: list[Step]) -> Kept:
    """Return one flag a unit: False for those that the steps remove."""
    kept = np.ones(groups.count, dtype=np.bool_)
    for step in removed:
        kept[step.units] = False
    return kept

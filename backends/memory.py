"""Where each value lies in the workspace: values that don't live at the same time share memory."""

from __future__ import annotations

from .plan import Plan, Value

ALIGNMENT = 64


def lifetimes(plan: Plan) -> dict[Value, tuple[int, int]]:
    """Return the first and last step that touches each value of the workspace."""
    spans: dict[Value, tuple[int, int]] = {}
    for number, step in enumerate(plan.steps):
        for value in step.values:
            if value.place == "workspace":
                spans[value] = (spans.get(value, (number, number))[0], number)
    return spans


def place_values(plan: Plan) -> int:
    """Give each workspace value its offset; return the workspace's size in bytes.

    Largest first, each at the lowest offset that is free during its whole life (greedy by size,
    Pisarchyk and Lee 2020, "Efficient memory management for deep neural net inference", section 5).
    """
    spans = lifetimes(plan)
    placed: list[Value] = []
    order = {value: number for number, value in enumerate(spans)}
    for value in sorted(spans, key=lambda v: (-v.nbytes, order[v])):
        first, last = spans[value]
        offset = 0
        neighbours = [v for v in placed if spans[v][0] <= last and first <= spans[v][1]]
        for other in sorted(neighbours, key=lambda v: v.offset):
            if offset + value.nbytes <= other.offset:
                break
            offset = max(offset, -(-(other.offset + other.nbytes) // ALIGNMENT) * ALIGNMENT)
        value.offset = offset
        placed.append(value)
    return max((value.offset + value.nbytes for value in placed), default=0) + ALIGNMENT

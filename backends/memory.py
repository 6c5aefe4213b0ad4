"""Where each value lies in the workspace: values that don't live at the same time share memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .plan import Plan
from .value import Value, check_size

ALIGNMENT = 64

# The first and last step that touches a value.
Span = tuple[int, int]


def lifetimes(plan: Plan) -> dict[Value, Span]:
    """Return the first and last step that touches each value of the workspace.

    A value that is kept from call to call has its memory from the first step to the last one.
    """
    spans: dict[Value, Span] = {}
    for number, step in enumerate(plan.steps):
        for value in step.values:
            if value.place == "workspace":
                spans[value] = (spans.get(value, (number, number))[0], number)
    last = len(plan.steps) - 1
    return {value: (0, last) if value.kept else span for value, span in spans.items()}


def place_values(plan: Plan) -> int:
    """Give each workspace value its offset; return the workspace's size in bytes.

    Each value at the lowest offset that is free during its whole life: once largest first (greedy
    by size, Pisarchyk and Lee 2020, "Efficient memory management for deep neural net inference",
    section 5), once by size times life, which serves long residuals better. The smaller one is
    taken.

    Raises:
        OptionError: It is larger than kernels can address.
    """
    spans = lifetimes(plan)
    by_size = sorted(spans, key=lambda v: -v.nbytes)
    by_area = sorted(spans, key=lambda v: -v.nbytes * (spans[v][1] - spans[v][0] + 1))
    offsets = min((_placed(order, spans) for order in (by_size, by_area)), key=_size)
    check_size("the workspace of a call", _size(offsets))
    for value, offset in offsets.items():
        value.offset = offset
    return _size(offsets)


def _placed(values: Sequence[Value], spans: Mapping[Value, Span]) -> dict[Value, int]:
    """Return each value's offset, placed one after the other."""
    offsets: dict[Value, int] = {}
    for value in values:
        first, last = spans[value]
        offset = 0
        neighbours = [v for v in offsets if spans[v][0] <= last and first <= spans[v][1]]
        for other in sorted(neighbours, key=offsets.__getitem__):
            if offset + value.nbytes <= offsets[other]:
                break
            end = offsets[other] + other.nbytes
            offset = max(offset, -(-end // ALIGNMENT) * ALIGNMENT)
        offsets[value] = offset
    return offsets


def _size(offsets: Mapping[Value, int]) -> int:
    return max((offset + v.nbytes for v, offset in offsets.items()), default=0) + ALIGNMENT


def unplanned_bytes(spans: Mapping[Value, Span]) -> int:
    """Return what the values would take if none shared memory with another."""
    return sum(value.nbytes for value in spans)


def least_bytes(spans: Mapping[Value, Span]) -> int:
    """Return what any placement needs: the most bytes that are alive at one step."""
    changes: dict[int, int] = {}
    for value, (first, last) in spans.items():
        changes[first] = changes.get(first, 0) + value.nbytes
        changes[last + 1] = changes.get(last + 1, 0) - value.nbytes
    alive = most = 0
    for step in sorted(changes):
        alive += changes[step]
        most = max(most, alive)
    return most


def describe_memory(plan: Plan) -> dict[str, int]:
    """Return the artifact's entry on memory, in bytes; see `artifact.Memory`.

    Args:
        plan: Values placed.
    """
    spans = lifetimes(plan)
    return {
        "activations": plan.workspace_bytes,
        "unplanned": unplanned_bytes(spans),
        "least": least_bytes(spans),
        "parameters": plan.parameter_bytes,
    }

"""What happened to a graph: the passes applied and what they refused."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Refused:
    """A node that a pass left alone, and why. Ends in the report.

    Attributes:
        node: The node's origin name.
        reason: Why, as one clause.
    """

    node: str
    reason: str


@dataclass(frozen=True)
class HistoryEntry:
    """One pass applied to a graph.

    Attributes:
        name: The pass's registered name.
        options: Its options, as plain JSON values.
        seed: The seed that it ran with.
        changed: Whether the graph is different after it.
        refused: What it left alone.
        notes: Numbers that the pass wants remembered, as plain JSON values.
        seconds: Wall-clock time; not part of equality, since it differs between equal runs.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    changed: bool = False
    refused: tuple[Refused, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the entry as plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> HistoryEntry:
        """Rebuild an entry from `to_json`."""
        refused = tuple(Refused(**item) for item in data["refused"])
        return HistoryEntry(**{**data, "refused": refused})

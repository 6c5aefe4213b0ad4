"""How a layer is computed: a strategy and its knobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Choice:
    """A strategy and its knobs.

    Attributes:
        strategy: A name in `lower.strategies.STRATEGIES`.
        knobs: Plain JSON.
        source: Who chose: "database", "table" or "rules".
    """

    strategy: str
    knobs: Mapping[str, Any]
    source: str = "rules"


class Choices(Protocol):
    """What knows measured choices: a tuning database."""

    def find(self, workload: str) -> Choice | None:
        """Return the best choice for a workload, or None."""
        ...

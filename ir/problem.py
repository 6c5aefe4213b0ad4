"""What the verifier finds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx


@dataclass(frozen=True)
class Problem:
    """One broken invariant: its code, what is wrong, and the node, if it concerns one."""

    code: str
    what: str
    node: fx.Node | None = None

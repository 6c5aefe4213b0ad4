"""Channels as atoms: which ones are one and the same decision, and which must stay.

An atom is one channel of one tensor. Atoms that can only be kept or removed together are united
(union-find); an atom that must stay carries the reason, and so does everything united with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Atoms = NDArray[np.int64]


class AtomTable:
    """All atoms of a graph. The first atom of a united set stands for the set."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._reasons: dict[int, str] = {}

    def fresh(self, count: int, reason: str | None = None) -> Atoms:
        """Make `count` new atoms, protected from the start if there is a reason."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        made = np.arange(first, first + count, dtype=np.int64)
        if reason is not None:
            self.protect(made, reason)
        return made

    def find(self, atom: int) -> int:
        """Return the atom that stands for the set of `atom`."""
        while self._parent[atom] != atom:
            self._parent[atom] = self._parent[self._parent[atom]]
            atom = self._parent[atom]
        return atom

    def unite(self, left: Atoms, right: Atoms) -> None:
        """Unite the atoms of two lists of the same length, pair by pair."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            first, second = sorted((self.find(a), self.find(b)))
            if first == second:
                continue
            self._parent[second] = first
            reason = self._reasons.pop(second, None)
            if reason is not None:
                self._reasons.setdefault(first, reason)

    def protect(self, atoms: Atoms, reason: str) -> None:
        """Forbid to remove these atoms; the first reason that a set was given is kept."""
        for atom in atoms.tolist():
            self._reasons.setdefault(self.find(atom), reason)

    def units(self) -> tuple[Atoms, dict[int, str]]:
        """Number the united sets from 0 in the order of their first atoms.

        Returns:
            The unit of each atom, and the reason of each unit that must stay.
        """
        roots = np.array([self.find(atom) for atom in range(len(self._parent))], dtype=np.int64)
        known, unit_of_atom = np.unique(roots, return_inverse=True)
        reasons = {
            unit: self._reasons[root]
            for unit, root in enumerate(known.tolist())
            if root in self._reasons
        }
        return unit_of_atom.astype(np.int64), reasons

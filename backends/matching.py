"""Which of an artifact's targets this machine runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planish.ir.errors import ArtifactError, OptionError

from .cpu import cpu_flags, machine


def obstacle(entry: dict[str, Any]) -> str | None:
    """Return why this machine can't run a target of a manifest, or None if it can."""
    if entry["machine"] != machine():
        return f"{entry['name']!r} is for {entry['machine']}, this machine is {machine()}"
    missing = sorted(set(entry["cpu_flags"]) - cpu_flags())
    return f"{entry['name']!r} needs {', '.join(missing)}" if missing else None


def choose_target(entries: Sequence[dict[str, Any]], wanted: str | None, where: str) -> str:
    """Return the name of the target to run: the wanted one, else the first that this machine runs.

    Args:
        entries: The manifest's targets, best first.
        wanted: A target's name; "native" is what this machine runs best, if none has that name.
        where: The artifact, for errors.

    Raises:
        ArtifactError: This machine runs none of them, or not the wanted one.
        OptionError: The wanted one is not there.
    """
    names = [entry["name"] for entry in entries]
    if wanted == "native" and wanted not in names:
        wanted = None
    if wanted is not None and wanted not in names:
        raise OptionError(
            f"the artifact has no code for target {wanted!r}",
            where=where,
            cure=f"it has {', '.join(names)}",
        )
    candidates = [entry for entry in entries if wanted in (None, entry["name"])]
    obstacles = [obstacle(entry) for entry in candidates]
    for entry, reason in zip(candidates, obstacles, strict=True):
        if reason is None:
            return entry["name"]
    raise ArtifactError(
        f"the artifact is for another CPU: {'; '.join(map(str, obstacles))}",
        where=where,
        cure="compile it for a target that this machine has, such as native",
    )

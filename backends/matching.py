"""Which of an artifact's targets this machine runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planish.ir.errors import ArtifactError, OptionError

from .cpu import cpu_flags, machine


@dataclass(frozen=True)
class Processor:
    """What an artifact would run on.

    Attributes:
        machine: The instruction set's family: "x86_64", "aarch64".
        cpu_flags: The processor's features as Linux spells them.
        called: How messages call it.
    """

    machine: str
    cpu_flags: frozenset[str]
    called: str = "this machine"


def obstacle(entry: dict[str, Any], processor: Processor | None = None) -> str | None:
    """Return why a processor, this one by default, can't run a target of a manifest, or None."""
    on = processor or Processor(machine(), cpu_flags())
    if entry["machine"] != on.machine:
        return f"{entry['name']!r} is for {entry['machine']}, {on.called} is {on.machine}"
    missing = sorted(set(entry["cpu_flags"]) - on.cpu_flags)
    return f"{entry['name']!r} needs {', '.join(missing)}" if missing else None


def choose_target(
    entries: Sequence[dict[str, Any]],
    wanted: str | None,
    where: str,
    processor: Processor | None = None,
) -> str:
    """Return the name of the target to run: the wanted one, else the first that can run.

    Args:
        entries: The manifest's targets, best first.
        wanted: A target's name; "native" is what the processor runs best, if none has that name.
        where: The artifact, for errors.
        processor: What it would run on; this machine's by default.

    Raises:
        ArtifactError: The processor runs none of them, or not the wanted one.
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
    obstacles = [obstacle(entry, processor) for entry in candidates]
    for entry, reason in zip(candidates, obstacles, strict=True):
        if reason is None:
            return entry["name"]
    raise ArtifactError(
        f"the artifact is for another CPU: {'; '.join(map(str, obstacles))}",
        where=where,
        cure="compile it for a target that this machine has, such as native"
        if processor is None
        else f"compile it for a target that {processor.called} has",
    )

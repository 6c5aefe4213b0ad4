"""Which of an artifact's targets this machine runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planish.ir.errors import ArtifactError, OptionError, TargetError

from .cpu import cpu_flags, machine
from .cuda.driver import absence, compute_capability
from .target import Target, describe_target, require_processor


@dataclass(frozen=True)
class Processor:
    """What an artifact would run on.

    Attributes:
        machine: The instruction set's family: "x86_64", "aarch64".
        cpu_flags: The processor's features as Linux spells them.
        called: How messages call it.
        count: Threads that it runs at once, if that is known.
    """

    machine: str
    cpu_flags: frozenset[str]
    called: str = "this machine"
    count: int | None = None


def obstacle(entry: dict[str, Any], processor: Processor | None = None) -> str | None:
    """Return why a processor, this one by default, can't run a target of a manifest, or None.

    This machine may have a GPU beside it.
    """
    if processor is None and entry["machine"] == "cuda":
        return _gpu_obstacle(entry["name"], *entry["capability"])
    on = processor or Processor(machine(), cpu_flags())
    if entry["machine"] != on.machine:
        return f"{entry['name']!r} is for {entry['machine']}, {on.called} is {on.machine}"
    missing = sorted(set(entry["cpu_flags"]) - on.cpu_flags)
    return f"{entry['name']!r} needs {', '.join(missing)}" if missing else None


def _gpu_obstacle(name: str, major: int, minor: int) -> str | None:
    """Return why this machine's GPU can't run a cubin: it is for one major version from a minor on.

    Args:
        name: The target's.
        major: Of the compute capability that the cubin is for.
        minor: Likewise.
    """
    found = compute_capability()
    wanted = f"{name!r} needs an NVIDIA GPU of compute capability {major}.{minor} to {major}.9"
    if found is None:
        return f"{wanted}, and {absence()}"
    fits = found[0] == major and found[1] >= minor
    return None if fits else f"{wanted}, this machine's has {found[0]}.{found[1]}"


def require_runnable(target: Target, cure: str) -> None:
    """Raise TargetError unless this machine's processor runs a target's code.

    Args:
        target: Which one; a GPU is not a processor.
        cure: What the error advises, but for a GPU.
    """
    require_processor(target)
    reason = obstacle(describe_target(target))
    if reason is not None:
        raise TargetError(f"this machine's processor can't run it: {reason}", cure=cure)


def choose_target(
    entries: Sequence[dict[str, Any]],
    wanted: str | None,
    where: str | None,
    processor: Processor | None = None,
    failed: Mapping[str, str] | None = None,
) -> str:
    """Return the name of the target to run: the wanted one, else the first that can run.

    Args:
        entries: The manifest's targets, best first.
        wanted: A target's name; "native" is what the processor runs best, if none has that name.
        where: The artifact's file, for errors; None where it is in memory alone.
        processor: What it would run on; this machine's by default.
        failed: Targets that fit but could not be loaded, and why: they are not chosen.

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
    known = failed or {}
    obstacles = [known.get(entry["name"]) or obstacle(entry, processor) for entry in candidates]
    for entry, reason in zip(candidates, obstacles, strict=True):
        if reason is None:
            return entry["name"]
    if known:
        raise _failure(entries, [str(reason) for reason in obstacles], where, known)
    gpus = any(entry["machine"] == "cuda" for entry in candidates)
    other = "other hardware" if gpus else "another CPU"
    raise ArtifactError(
        f"the artifact is for {other}: {'; '.join(map(str, obstacles))}",
        where=where,
        cure=_elsewhere(where, processor),
    )


def _elsewhere(where: str | None, processor: Processor | None) -> str:
    """Return the cure for an artifact that a processor can't run."""
    if processor is not None:
        return f"compile it for a target that {processor.called} has"
    here = "compile it for a target that this machine has, such as native"
    return here if where else f"save it and load it on such a machine, or {here}"


def _failure(
    entries: Sequence[dict[str, Any]],
    reasons: list[str],
    where: str | None,
    failed: Mapping[str, str],
) -> ArtifactError:
    """Return the error for targets that fit this machine and could not be loaded."""
    fitting = [e["name"] for e in entries if e["name"] not in failed and obstacle(e) is None]
    return ArtifactError(
        f"the artifact can't be loaded: {'; '.join(reasons)}",
        where=where,
        cure=f"load it with target={fitting[0]!r}, or see what else uses the GPU (nvidia-smi)"
        if fitting
        else "see what else uses the GPU (nvidia-smi), or compile it for a processor, too",
    )

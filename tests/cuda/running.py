"""Runs what `making` compiled on this machine's GPU: with NumPy, safetensors and planish alone."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from planish.backends import load
from planish.ir.calling import flatten_structure
from planish.ir.errors import DataError

# What float operators are right to.
RTOL, ATOL = 1e-5, 1e-6


@dataclass(frozen=True)
class Outcome:
    """How one case went.

    Attributes:
        samples: Inputs that it ran on.
        values: Output values that were compared.
        different: Those that differ from the reference; in float, by more than it is close.
    """

    samples: int
    values: int
    different: int


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(folder: Path) -> int:
    """Compare every case of a folder; return the exit status: 1 where a value differs.

    Raises:
        DataError: There are none, or one is damaged.
        ArtifactError: This machine's GPU doesn't run them.
    """
    paths = sorted(folder.glob("*.planish"))
    if not paths:
        raise DataError(f"{folder} has no cases", cure=f"python -m tests.cuda make {folder}")
    wrong = 0
    for path in paths:
        begun = time.perf_counter()
        found = compare(path)
        wrong += bool(found.different)
        said = f"{found.different} of {found.values} values differ" if found.different else "right"
        took = time.perf_counter() - begun
        say(f"{path.stem}: {found.samples} inputs, {said} ({took:.2f} s)")
    right = f"{len(paths) - wrong} of {len(paths)}"
    say(f"{right} equal the reference in every bit; float operators to {RTOL}")
    return int(wrong > 0)


def compare(path: Path) -> Outcome:
    """Run one artifact on the inputs beside it, and compare its outputs with those stored there.

    Raises:
        DataError: What is stored there is not what `making` writes.
    """
    stored = _read(path.with_suffix(".npz"))
    artifact = load(path, str(stored["target"]))
    samples = range(int(stored["samples"]))
    pairs = [pair for sample in samples for pair in _pairs(artifact, stored, sample)]
    values = sum(want.size for want, _ in pairs)
    wrong = sum(_differing(*pair, bool(stored["close"])) for pair in pairs)
    return Outcome(len(samples), values, wrong)


def _read(path: Path) -> dict[str, Any]:
    """Return a case's arrays; some of each sample must be there."""
    try:
        with np.load(path) as file:
            stored = dict(file)
        samples = int(stored["samples"])
        whole = {"target", "close"} <= set(stored) and samples > 0
        whole = whole and all(f"output.{sample}.0" in stored for sample in range(samples))
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile):
        whole, stored = False, {}
    if not whole:
        raise DataError(
            "a case's inputs and results are missing or damaged",
            where=str(path),
            cure=f"python -m tests.cuda make {path.parent}",
        )
    return stored


def _pairs(artifact: Any, stored: dict[str, Any], sample: int) -> list[tuple[Any, Any]]:
    """Return what is right and what the artifact makes of one sample, output by output."""
    names = [f"input.{sample}.{i}" for i in range(len(artifact.inputs))]
    wanted = [stored[name] for name in stored if name.startswith(f"output.{sample}.")]
    flat: list[Any] = []
    flatten_structure(artifact(*[stored[name] for name in names]), flat)
    if len(flat) != len(wanted):
        raise DataError(f"the artifact has {len(flat)} outputs, the reference {len(wanted)}")
    return list(zip(wanted, flat, strict=True))


def _differing(want: Any, have: Any, close: bool) -> int:
    """Return how many values have other bits, or are not close."""
    if (want.dtype, want.shape) != (have.dtype, have.shape):
        return max(want.size, 1)
    if close and want.dtype.kind == "f":
        # Half precision: a step beside the right one.
        rtol = max(RTOL, float(np.finfo(want.dtype).eps))
        return int((~np.isclose(have, want, rtol, ATOL, equal_nan=True)).sum())
    bits = f"u{want.itemsize}"
    return int((want.view(bits) != have.view(bits)).sum())

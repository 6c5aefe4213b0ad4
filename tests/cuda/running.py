"""Runs what `making` compiled on this machine's GPU: with NumPy, safetensors and planish alone."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        DataError: There are none.
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
    """Run one artifact on the inputs beside it, and compare its outputs with those stored there."""
    with np.load(path.with_suffix(".npz")) as stored:
        target = str(stored["target"])
        artifact = load(path, target)
        samples = int(stored["samples"])
        pairs = [pair for i in range(samples) for pair in _outputs(artifact, stored, i)]
        close = bool(stored["close"])
    values = sum(want.size for want, _ in pairs)
    return Outcome(samples, values, sum(_differing(*pair, close) for pair in pairs))


def _outputs(artifact: Any, stored: Any, sample: int) -> list[tuple[Any, Any]]:
    """Return what is right and what the artifact makes of one sample, output by output."""
    inputs = [stored[f"input.{sample}.{i}"] for i in range(len(artifact.inputs))]
    flat: list[Any] = []
    flatten_structure(artifact(*inputs), flat)
    return [(stored[f"output.{sample}.{i}"], have) for i, have in enumerate(flat)]


def _differing(want: Any, have: Any, close: bool) -> int:
    """Return how many values have other bits, or are not close."""
    if (want.dtype, want.shape) != (have.dtype, have.shape):
        return want.size
    if close and want.dtype.kind == "f":
        return int((~np.isclose(have, want, RTOL, ATOL, equal_nan=True)).sum())
    bits = f"u{want.itemsize}"
    return int((want.view(bits) != have.view(bits)).sum())

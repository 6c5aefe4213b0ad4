"""The C++ example, built and run on an artifact: for this machine and for emulated ones."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.backends import Artifact

EXAMPLE = Path(__file__).parents[1] / "examples" / "deploy_cpp"


def build_example(out: Path, *variables: str) -> Path:
    """Build the program with the example's Makefile; return it.

    Args:
        out: Where it goes.
        variables: For make, such as "CXX=aarch64-linux-gnu-g++".
    """
    words = ["make", "-s", "-C", str(EXAMPLE), f"OUT={out}", *variables]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "it compiles without warnings"
    return out


def deploy(
    command: Sequence[str | Path],
    folder: Path,
    artifact: Artifact,
    inputs: Sequence[NDArray[Any]],
    variables: Mapping[str, str] | None = None,
) -> list[NDArray[Any]]:
    """Run the program on what `unpack` wrote; return the outputs, flat.

    Args:
        command: How to start it.
        folder: What `unpack` wrote; raw files go there too.
        artifact: Where dtypes and shapes are known from.
        inputs: What to run on.
        variables: Environment variables.
    """
    files = [folder / f"in{i}" for i in range(len(inputs))]
    for file, array in zip(files, inputs, strict=True):
        array.tofile(file)
    made = [folder / f"out{i}" for i in range(len(artifact.outputs))]
    words = [*map(str, command), str(folder), *map(str, files + made)]
    done = subprocess.run(words, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    return [
        np.fromfile(file, info.dtype).reshape(info.shape)
        for file, info in zip(made, artifact.outputs, strict=True)
    ]

"""Runs artifacts in the emulated Python: one JSON object a line in, one out. See `emulated`.

Starting an emulated Python takes seconds, so it stays and answers many jobs.
"""

import json
import os
import sys
from typing import Any

import numpy as np

from planish.backends import load
from planish.backends.cpu import cpu_flags, machine
from planish.ir.calling import flatten_structure
from planish.ir.errors import PlanishError


def main() -> None:
    """Answer jobs until the input ends."""
    # What a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        answers.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")
        answers.flush()


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    try:
        if job["kind"] == "run":
            return {"target": _run(job)}
        return {"machine": machine(), "cpu_flags": sorted(cpu_flags())}
    except PlanishError as error:
        return {"error": str(error), "type": type(error).__name__}


def _run(job: dict[str, Any]) -> str:
    """Run an artifact on all samples of a file, write the flat outputs to another one."""
    artifact = load(job["artifact"], job["target"])
    results: dict[str, np.ndarray] = {}
    with np.load(job["inputs"]) as stored:
        for sample in range(job["samples"]):
            inputs = [stored[f"{sample}.{i}"] for i in range(len(artifact.inputs))]
            flat: list[np.ndarray] = []
            flatten_structure(artifact(*inputs), flat)
            results.update({f"{sample}.{i}": value for i, value in enumerate(flat)})
    np.savez(job["outputs"], **results)  # type: ignore[arg-type]
    return artifact.target


if __name__ == "__main__":
    main()

"""An emulated processor that runs artifacts: a process that starts once and answers many calls."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import planish
from planish.backends.artifact import Artifact
from planish.ir.calling import nest_structure

from .environment import Environment

# Seconds that a job may take.
PATIENCE = 300.0


class EmulationError(Exception):
    """The emulated planish refused, or its process ended."""


class Emulated:
    """A processor, as qemu knows it. A process that ends is started anew with the next call.

    Attributes:
        environment: What it runs in.
        cpu: qemu's name: "cortex-a72" (armv8), "cortex-a76" (with sdot), "max" (with smmla).
    """

    def __init__(self, environment: Environment, cpu: str) -> None:
        """Start nothing yet."""
        self.environment = environment
        self.cpu = cpu
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="planish-arm-")
        place = Path(self._folder.name)
        self._files = place / "files"
        self._files.mkdir()
        # A folder with nothing but planish: beside it may stand packages of this machine.
        self._packages = place / "packages"
        self._packages.mkdir()
        (self._packages / "planish").symlink_to(Path(planish.__path__[0]).absolute())

    def run(
        self,
        artifact: Artifact,
        samples: Sequence[Sequence[NDArray[Any]]],
        target: str | None = None,
    ) -> list[Any]:
        """Load an artifact and call it on each sample.

        Args:
            artifact: Compiled for ARM.
            samples: Inputs of each call, in the artifact's order.
            target: Which of its targets to run; by default the best that the processor runs.

        Returns:
            What each call returned.

        Raises:
            EmulationError: A PlanishError there, with its text; or the process ended, as it does
                at an instruction that the processor lacks.
        """
        model, inputs, outputs = (self._files / n for n in ("m.planish", "in.npz", "out.npz"))
        model.write_bytes(artifact.content)
        arrays = {f"{n}.{i}": a for n, sample in enumerate(samples) for i, a in enumerate(sample)}
        np.savez(inputs, **arrays)  # type: ignore[arg-type]
        files = {"artifact": str(model), "inputs": str(inputs), "outputs": str(outputs)}
        self._ask({"kind": "run", "target": target, "samples": len(samples), **files})
        count = len(artifact.outputs)
        with np.load(outputs) as stored:
            flat = [[stored[f"{n}.{i}"] for i in range(count)] for n in range(len(samples))]
        return [nest_structure(artifact.manifest["structure"], values) for values in flat]

    def describe(self) -> dict[str, Any]:
        """Return what planish there finds itself on: "machine" and "cpu_flags"."""
        return self._ask({"kind": "describe"})

    def command(self, *words: str | Path) -> list[str]:
        """Return how to start an aarch64 program on this processor."""
        return self.environment.command(self.cpu, *words)

    def variables(self) -> dict[str, str]:
        """Return the environment variables for such a program, planish among its packages."""
        return self.environment.variables(self._packages)

    def close(self) -> None:
        """End the process and delete its files."""
        self._end()
        self._folder.cleanup()

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            ready = bool(select.select([process.stdout], [], [], PATIENCE)[0])
            line = process.stdout.readline() if ready else b""
        except OSError:  # it has ended
            ready, line = True, b""
        if not line.endswith(b"\n"):
            raise EmulationError(self._lost(ready))
        answer = json.loads(line)
        if "error" in answer:
            raise EmulationError(f"{answer['type']}: {answer['error']}")
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        worker = Path(__file__).with_name("worker.py")
        with (self._files / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                self.command(self.environment.python, worker),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self.variables(),
                start_new_session=True,
            )
        return self._process

    def _lost(self, ended: bool) -> str:
        """End the process; return what became of it."""
        status = self._end()
        if not ended:
            return f"no answer within {PATIENCE:g} s"
        said = (self._files / "stderr").read_text(errors="replace").strip().splitlines()
        what = signal.Signals(-status).name if status < 0 else f"status {status}"
        return f"the emulated {self.cpu} ended with {what}" + (f": {said[-1]}" if said else "")

    def _end(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        try:
            return process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()

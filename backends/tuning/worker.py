"""Processes that measure, and what they run.

A worker reads one JSON object a line and answers with one. It lives as long as its input does, so
it ends by itself when the tuner is killed. It is no child of the terminal: Ctrl-C is for the tuner.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from planish.ir.errors import PlanishError, first_line

from ..runtime import load_ffi
from .measuring import Settings, Timed, measure_here

# Measures a choice's folder beside the rules' own.
Measure = Callable[[str, str, Settings], Timed]


class ServerError(Exception):
    """A server or a process is gone or does not answer; another try may succeed."""


class MeasureError(Exception):
    """The kernel can't be measured."""


class Worker:
    """A process that measures one kernel at a time. A lost one is replaced."""

    def __init__(self, *, remote: bool, patience: float) -> None:
        """Start the process; it gets ready while the first kernels are built.

        Args:
            remote: Whether it measures on servers.
            patience: Seconds after which a measurement is given up.
        """
        self._remote = remote
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._started()

    def measure(self, folder: Path, base_folder: Path, settings: Settings) -> Timed:
        """Measure what `stored.store` wrote.

        Raises:
            ServerError: The server or this worker's process was lost.
            MeasureError: The kernel can't be run, or takes too long.
        """
        job = {
            "folder": str(folder),
            "base_folder": str(base_folder),
            "settings": asdict(settings),
        }
        answer = self._ask(json.dumps(job).encode() + b"\n")
        if "timed" in answer:
            return Timed(**answer["timed"])
        raise (ServerError if answer["lost"] else MeasureError)(answer["error"])

    def _ask(self, line: bytes) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], self._patience)
            answer = process.stdout.readline() if ready else b""
        except OSError:
            ready, answer = [process.stdout], b""
        if answer.endswith(b"\n"):
            return json.loads(answer)
        self.close()
        if not ready and not self._remote:
            return {"error": f"took longer than {self._patience:g} s", "lost": False}
        what = f"ended with status {process.returncode}" if ready else "did not answer"
        return {"error": f"the process that measures {what}", "lost": True}

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *(["remote"] if self._remote else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._process

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def serve(*, remote: bool) -> None:
    """Answer jobs until the input ends."""
    # Kernels and libraries that print must not be taken for answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    measure: Measure = measure_here
    lost: tuple[type[Exception], ...] = ()
    if remote:
        load_ffi()  # before TVM, which would import torch with it
        from .remote import LostServerError, measure_remote

        measure, lost = measure_remote, (LostServerError,)
    for line in sys.stdin.buffer:
        answers.write(json.dumps(_answer(json.loads(line), measure, lost)).encode() + b"\n")
        answers.flush()


def _answer(
    job: dict[str, Any],
    measure: Measure,
    lost: tuple[type[Exception], ...],
) -> dict[str, Any]:
    try:
        settings = Settings(**job["settings"])
        return {"timed": asdict(measure(job["folder"], job["base_folder"], settings))}
    except (RuntimeError, OSError, ValueError, AttributeError, PlanishError, *lost) as error:
        return {"error": first_line(error), "lost": isinstance(error, lost)}


if __name__ == "__main__":
    serve(remote="remote" in sys.argv[1:])

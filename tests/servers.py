"""Real RPC servers for tests, each a process on this machine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

Server = subprocess.Popen[str]
HERE = (sys.executable,)


@contextlib.contextmanager
def rpc_server(
    python: Sequence[str] = HERE, variables: Mapping[str, str] | None = None, patience: float = 60
) -> Iterator[tuple[tuple[str, int], Server]]:
    """Run planish's server on a free port of loopback; yield its address and its process.

    Args:
        python: How to start Python.
        variables: Environment variables, this process's by default.
        patience: Seconds that it may take to start.
    """
    process = subprocess.Popen(
        [*python, "-m", "planish.rpc_server", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
        start_new_session=True,  # its sessions are processes of the same group
    )
    try:
        yield ("127.0.0.1", _port(process, patience)), process
    finally:
        kill(process)


def _port(process: Server, patience: float) -> int:
    assert process.stderr is not None
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if select.select([process.stderr], [], [], 0.2)[0]:
            line = process.stderr.readline()
            assert line, "the server ended"
            if "listening on " in line:
                return int(line.partition("listening on ")[2].partition(",")[0].rpartition(":")[2])
    raise AssertionError("the server does not listen")


def kill(process: Server) -> None:
    """End a server with its sessions."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stderr is not None:
        process.stderr.close()

"""Real RPC servers for tests, each a process on this machine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from planish.backends.remote.address import require_server
from planish.ir.errors import TargetError

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


@contextlib.contextmanager
def tvm_server(patience: float = 60) -> Iterator[tuple[str, int]]:
    """Run TVM's own server, without a tracker; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = ("127.0.0.1", int(probe.getsockname()[1]))
    words = ["--host", address[0], "--port", str(address[1]), "--port-end", str(address[1] + 1)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tvm.exec.rpc_server", *words],
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        _wait(address, process, patience)
        yield address
    finally:
        kill(process)


def _wait(address: tuple[str, int], process: Server, patience: float) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        assert process.poll() is None, "the server ended"
        try:
            require_server(address)
        except TargetError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError("the server does not listen")


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

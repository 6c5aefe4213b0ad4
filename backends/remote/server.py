"""An RPC server for a device: TVM's protocol, one client at a time, each in a process of its own.

TVM's own server starts another Python for itself, which an emulated Python can't, and ends when a
client's code crashes. This one goes on, and tells what processor it has.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from planish.ir.errors import TargetError

from ..cpu import cpu_flags, machine
from ..runtime import load_ffi
from .address import MAGIC, MISMATCH
from .device import DESCRIBE

# Seconds that a client may take for its greeting.
_GREETING = 5.0
_LONGEST_KEY = 4096


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: The interface's address; 0.0.0.0 for all.
        port: 0 for any that is free.

    Raises:
        TargetError: The port is taken, or the host is none of this machine's.
    """
    try:
        return socket.create_server((host, port), backlog=8)
    except (OSError, OverflowError) as error:
        raise TargetError(
            f"can't listen: {getattr(error, 'strerror', None) or error}", where=f"{host}:{port}"
        ) from error


def serve(listening: socket.socket, say: Callable[[str], object]) -> None:
    """Serve clients for ever.

    Args:
        listening: From `listen`.
        say: Is told who comes and goes.
    """
    _load()
    while True:
        connection, peer = listening.accept()
        with connection:
            name = f"{peer[0]}:{peer[1]}"
            seconds = _greet(connection)
            if seconds is None:
                continue  # no client, or one that asked who is there
            say(f"serving {name}")
            say(f"{name}: {_serve_one(listening, connection, seconds)}")


def _load() -> None:
    """Load TVM without its compiler, once for all clients, and register what they may ask."""
    os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
    ffi = load_ffi()
    import tvm.rpc  # noqa: F401

    told = json.dumps({"machine": machine(), "cpu_flags": sorted(cpu_flags())})
    ffi.register_global_func(DESCRIBE, lambda: told, override=True)


def _greet(connection: socket.socket) -> float | None:
    """Do TVM's handshake; return how long the session may take, 0 for ever, or None for no client.

    A client sends the protocol's number and a key, "client:" and options, and gets the same back.
    """
    connection.settimeout(_GREETING)
    try:
        magic, length = struct.unpack("<ii", _receive(connection, 8))
        if magic != MAGIC or not 0 <= length <= _LONGEST_KEY:
            return None
        words = _receive(connection, length).decode(errors="replace").split()
        if not words or words[0] != "client:":
            connection.sendall(struct.pack("<i", MISMATCH))
            return None
        key = b"server:"
        connection.sendall(struct.pack("<ii", MAGIC, len(key)) + key)
        connection.settimeout(None)
    except OSError:
        return None
    limits = [word.removeprefix("-timeout=") for word in words if word.startswith("-timeout=")]
    return float(limits[0]) if limits else 0.0


def _receive(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            raise ConnectionError("the client went away")
        found += part
    return found


def _serve_one(listening: socket.socket, connection: socket.socket, seconds: float) -> str:
    """Serve a client in a process of its own; return how that ended."""
    folder = tempfile.mkdtemp(prefix="planish-rpc-")
    arguments = (listening, connection, folder)
    process = multiprocessing.get_context("fork").Process(target=_session, args=arguments)
    process.start()
    try:
        process.join(seconds or None)
        late = process.is_alive()
        if late:
            process.kill()
            process.join()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if late:
        return f"ended after {seconds:g} s, which is all that it asked for"
    return "finished" if process.exitcode == 0 else f"ended with status {process.exitcode}"


def _session(listening: socket.socket, connection: socket.socket, folder: str) -> None:
    """Answer a client until it goes; uploaded files lie in the folder."""
    from tvm.rpc import _ffi_api
    from tvm.rpc.server import _server_env

    listening.close()  # the port is the parent's
    os.chdir(folder)
    _server_env(None, _Folder(Path(folder)))
    loop: Any = _ffi_api
    loop.ServerLoop(connection.fileno())


class _Folder:
    """What TVM's server takes for its folder of uploads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.libs: list[Any] = []

    def relpath(self, name: str) -> str:
        """Return where a client's file lies."""
        return str(self._path / name)

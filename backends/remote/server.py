"""An RPC server for a device: TVM's protocol, one client at a time, each in a process of its own.

TVM's own server starts another Python for itself, which an emulated Python can't, and ends when a
client's code crashes. This one goes on, and tells what processor it has.
"""

from __future__ import annotations

import errno
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from planish.ir.errors import OptionError, TargetError

from ..cpu import cpu_flags, machine
from ..runtime import load_ffi, use_threads
from .address import MAGIC, MISMATCH, address_text
from .device import DESCRIBE, USE_THREADS

# Seconds that a client may take for its greeting.
_GREETING = 5.0
_LONGEST_KEY = 4096
_TIMEOUT = "-timeout="
# What to do about the system's reasons not to listen.
_CURES = {
    errno.EADDRINUSE: "give another --port; 0 takes one that is free",
    errno.EACCES: "give a --port above 1023, or 0 for one that is free",
}
_OTHER_HOST = "give a --host of this machine; 0.0.0.0 is all of them, 127.0.0.1 this machine alone"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: The interface's address, of IPv4 or IPv6; 0.0.0.0 for all.
        port: 0 for any that is free.

    Raises:
        OptionError: No host, or no port.
        TargetError: The port is taken, or the host is none of this machine's.
    """
    host = host.strip("[]")
    if not host:  # all interfaces for the system; nobody shall open them by an unset variable
        raise OptionError("the host is empty", cure=_OTHER_HOST)
    if not 0 <= port < 65536:
        raise OptionError(f"can't listen on port {port}", cure="give a --port from 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=8)
    except (OSError, UnicodeError) as error:
        code = getattr(error, "errno", None) or 0
        # Python adds the address to the system's words; names that can't be found have codes < 0.
        said = os.strerror(code) if code > 0 else "no such host"
        raise TargetError(
            f"can't listen: {said}",
            where=address_text((host, port)),
            cure=_CURES.get(code, _OTHER_HOST),
        ) from error


def serve(listening: socket.socket, say: Callable[[str], object]) -> None:
    """Serve clients for ever; `prepare` has to be called first.

    Args:
        listening: From `listen`.
        say: Is told who comes and goes.
    """
    while True:
        connection, peer = listening.accept()
        with connection:
            name = address_text(peer[:2])
            seconds = _greet(connection)
            if seconds is None:
                continue  # no client, or one that asked who is there
            say(f"serving {name}")
            say(f"{name}: {_serve_one(listening, connection, seconds)}")


def prepare() -> None:
    """Load TVM without its compiler, once for all clients, and register what they may ask.

    Raises:
        TargetError: A package is missing.
    """
    os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
    try:
        ffi = load_ffi()
        importlib.import_module("tvm.rpc")
    except ImportError as error:
        raise TargetError(
            f"the server needs TVM: {error}", cure="pip install apache-tvm and what it needs"
        ) from error
    facts = {"machine": machine(), "cpu_flags": sorted(cpu_flags()), "count": os.cpu_count()}
    told = json.dumps(facts)
    ffi.register_global_func(DESCRIBE, lambda: told, override=True)
    ffi.register_global_func(USE_THREADS, use_threads, override=True)


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
        seconds = _seconds(words)
        if not words or words[0] != "client:" or seconds is None:
            connection.sendall(struct.pack("<i", MISMATCH))
            return None
        key = b"server:"
        connection.sendall(struct.pack("<ii", MAGIC, len(key)) + key)
        connection.settimeout(None)
    except OSError:
        return None
    return seconds


def _seconds(words: list[str]) -> float | None:
    """Return how long a client's key says that its session may take; None if that is no time."""
    limits = [word.removeprefix(_TIMEOUT) for word in words if word.startswith(_TIMEOUT)]
    try:
        seconds = float(limits[0]) if limits else 0.0
    except ValueError:
        return None
    return seconds if 0 <= seconds <= threading.TIMEOUT_MAX else None


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
    try:
        process.start()
        process.join(seconds or None)
        late = process.is_alive()
    finally:  # also when this server is told to end
        if process.pid is not None:
            process.kill()
            process.join()
        shutil.rmtree(folder, ignore_errors=True)
    if late:
        return f"ended after {seconds:g} s, which is all that it asked for"
    return "finished" if process.exitcode == 0 else f"ended with status {process.exitcode}"


def _session(listening: socket.socket, connection: socket.socket, folder: str) -> None:
    """Answer a client until it goes; uploaded files lie in the folder."""
    # A session ends as it is told, without a word; the parent cleans up behind it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
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

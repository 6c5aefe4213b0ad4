"""Servers behind TVM's RPC tracker: who is there, and measuring on one of them.

A tracker (`python -m tvm.exec.rpc_tracker`) knows servers (`python -m tvm.exec.rpc_server --tracker
HOST:PORT --key KEY`) and lends each to one client at a time.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import rpc, runtime
from tvm.rpc import base

from planish.ir.errors import OptionError, TargetError, first_line

from .measuring import Settings, Stored

# Seconds for a tracker to answer; it only looks its answer up.
_ANSWER = 5.0
# Seconds after which a server ends a session by itself.
_SESSION = 60


class LostServerError(Exception):
    """A server that is gone or does not answer; the measurement may be tried on another one."""


def parse_tracker(text: str) -> tuple[str, int]:
    """Return (host, port) of "host:port".

    Raises:
        OptionError: It is spelled otherwise.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise OptionError(f"the tracker {text!r} is not host:port", cure="write 127.0.0.1:9190")
    return host.strip("[]"), int(port)


def list_servers(tracker: tuple[str, int], key: str) -> list[str]:
    """Return the addresses of the servers with a key, as "host:port".

    Raises:
        TargetError: No tracker answers there.
    """
    with _connect(tracker) as connection:
        base.sendjson(connection, [base.TrackerCode.SUMMARY])
        answer = base.recvjson(connection)[1]
    found = [item for item in answer["server_info"] if item["key"] == f"server:{key}"]
    return sorted(_address(*item["addr"]) for item in found)


def require_servers(tracker: tuple[str, int], key: str) -> list[str]:
    """Return the servers with a key.

    Raises:
        TargetError: No tracker answers, or it knows no such server.
    """
    found = list_servers(tracker, key)
    if not found:
        raise TargetError(
            f"the tracker knows no server with key {key!r}",
            where=_address(*tracker),
            cure=f"start one: python -m tvm.exec.rpc_server --tracker {_address(*tracker)} "
            f"--key {key}",
        )
    return found


def _address(host: str | None, port: int) -> str:
    return f"{host}:{port}"


def _connect(tracker: tuple[str, int]) -> socket.socket:
    """Return a connection to a tracker; TVM's own would try for a minute."""
    try:
        connection = socket.create_connection(tracker, timeout=_ANSWER)
        connection.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
        magic = struct.unpack("<i", base.recvall(connection, 4))[0]
    except OSError as error:
        raise TargetError(
            f"no RPC tracker answers: {error.strerror or error}",
            where=_address(*tracker),
            cure=f"start one: python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port {tracker[1]}",
        ) from error
    if magic != base.RPC_TRACKER_MAGIC:
        connection.close()
        raise TargetError("this is no RPC tracker", where=_address(*tracker))
    return connection


def _lend(connection: socket.socket, tracker: tuple[str, int], key: str) -> tuple[str, int, str]:
    """Wait for a free server; return its host, port and the word that it lets a client in by.

    Raises:
        LostServerError: There is none, or none becomes free.
    """
    base.sendjson(connection, [base.TrackerCode.REQUEST, key, "", 1])
    end = time.monotonic() + _SESSION
    while not select.select([connection], [], [], 1.0)[0]:
        # The tracker says nothing of servers that went while somebody waits for them.
        if not list_servers(tracker, key) or time.monotonic() > end:
            raise LostServerError("no server became free")
    _, (host, port, matchkey) = base.recvjson(connection)
    return host, port, matchkey


class Session:
    """A server lent by the tracker, for one measurement.

    Attributes:
        server: Its address, "host:port".
    """

    def __init__(self, settings: Settings) -> None:
        """Wait for a free server and connect to it.

        Raises:
            TargetError: No tracker answers.
            LostServerError: The server does not answer.
        """
        assert settings.tracker is not None
        with _connect(settings.tracker) as connection:
            try:
                host, port, matchkey = _lend(connection, settings.tracker, settings.key)
                self.server = _address(host, port)
                self._session: Any = rpc.connect(host, port, matchkey, _SESSION)
            except (OSError, RuntimeError, ValueError) as error:
                raise LostServerError(f"no server: {first_line(error)}") from error
        self._settings = settings
        self._loaded = 0

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        # Dropping the last reference ends the session; the server goes back to the tracker.
        self._session = None
        if kind is not None and issubclass(kind, RuntimeError | OSError):
            raise LostServerError(f"server {self.server}: {first_line(error[0])}")  # type: ignore[arg-type]

    def load(self, stored: Stored) -> _Loaded:
        """Upload a kernel with its parameters and workspace."""
        self._loaded += 1
        # The rules' own choice is measured beside itself too: a loaded file must stay as it is.
        name = f"kernel{self._loaded}.so"
        return _Loaded(self._session, stored, self._settings.threads, name)


class _Loaded:
    def __init__(self, session: Any, stored: Stored, threads: int, name: str) -> None:
        session.upload(str(stored.folder / "kernel.so"), name)
        self._stored = stored
        self._module = session.load_module(name)
        if threads > 1:
            session.get_function("runtime.config_threadpool")(1, threads)
        self._device = session.cpu(0)
        arrays = (np.array([0, 1], np.int32), stored.parameters, stored.workspace)
        self._tensors = [runtime.tensor(array, device=self._device) for array in arrays]

    def first_output(self) -> NDArray[Any]:
        status = self._module[self._stored.entry](*self._tensors)
        if status:
            raise RuntimeError(f"the kernel failed with status {status}")
        return self._stored.output(self._tensors[2].numpy()).copy()

    def seconds(self, count: int) -> float:
        timer = self._module.time_evaluator(
            self._stored.entry, self._device, number=count, repeat=1
        )
        return float(timer(*self._tensors).results[0]) * count

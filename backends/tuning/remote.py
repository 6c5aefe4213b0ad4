"""Measuring on a server: a certain one, or one that TVM's RPC tracker lends.

A tracker (`python -m tvm.exec.rpc_tracker`) knows servers (`python -m tvm.exec.rpc_server --tracker
HOST:PORT --key KEY`) and lends each to one client at a time.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm.rpc import base

from planish.ir.errors import TargetError, first_line

from ..remote.address import ANSWER, address_text, parse_address, require_server
from ..remote.device import Device
from .measuring import Settings, Timed, compared, in_turns
from .stored import Stored

# Seconds after which a server ends a session by itself.
_SESSION = 60


class LostServerError(Exception):
    """A server that is gone or does not answer; the measurement may be tried on another one."""


def parse_tracker(text: str) -> tuple[str, int]:
    """Return (host, port) of "host:port".

    Raises:
        OptionError: It is spelled otherwise.
    """
    return parse_address(text, "tracker", "127.0.0.1:9190")


def list_servers(tracker: tuple[str, int], key: str) -> list[str]:
    """Return the addresses of the servers with a key, as "host:port".

    Raises:
        TargetError: No tracker answers there.
    """
    with _connect(tracker) as connection:
        base.sendjson(connection, [base.TrackerCode.SUMMARY])
        answer = base.recvjson(connection)[1]
    found = [item for item in answer["server_info"] if item["key"] == f"server:{key}"]
    return sorted(address_text(item["addr"]) for item in found)


def require_servers(tracker: tuple[str, int], key: str) -> list[str]:
    """Return the servers with a key.

    Raises:
        TargetError: No tracker answers, or it knows no such server.
    """
    found = list_servers(tracker, key)
    if not found:
        raise TargetError(
            f"the tracker knows no server with key {key!r}",
            where=address_text(tracker),
            cure=f"start one: python -m tvm.exec.rpc_server --tracker {address_text(tracker)} "
            f"--key {key}",
        )
    return found


def count_servers(settings: Settings) -> int:
    """Return how many servers can measure.

    Raises:
        TargetError: None does.
    """
    if settings.server is not None:
        require_server(settings.server)
        return 1
    assert settings.tracker is not None
    return len(require_servers(settings.tracker, settings.key))


def _connect(tracker: tuple[str, int]) -> socket.socket:
    """Return a connection to a tracker; TVM's own would try for a minute."""
    try:
        connection = socket.create_connection(tracker, timeout=ANSWER)
        connection.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
        magic = struct.unpack("<i", base.recvall(connection, 4))[0]
    except OSError as error:
        raise TargetError(
            f"no RPC tracker answers: {error.strerror or error}",
            where=address_text(tracker),
            cure=f"start one: python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port {tracker[1]}",
        ) from error
    if magic != base.RPC_TRACKER_MAGIC:
        connection.close()
        raise TargetError("this is no RPC tracker", where=address_text(tracker))
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


def measure_remote(folder: str, base_folder: str, settings: Settings) -> Timed:
    """Measure a choice on a server; one copy of the parameters each."""
    with Session(settings) as session:
        sides = [session.load(Stored.read(Path(place))) for place in (base_folder, folder)]
        difference, values = compared(*(side.first_output() for side in sides))
        base, other, rounds = in_turns(sides[0].seconds, sides[1].seconds, settings.seconds)
        return Timed(other * 1e6, base * 1e6, rounds, difference, values, session.server)


class Session:
    """A server, for one measurement.

    Attributes:
        server: Its address, "host:port".
    """

    def __init__(self, settings: Settings) -> None:
        """Wait for a free server and connect to it.

        Raises:
            TargetError: No tracker answers.
            LostServerError: The server does not answer.
        """
        self._device = _borrow(settings)
        self.server = self._device.address
        self._settings = settings

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._device.close()  # the server goes back to the tracker
        if kind is not None and issubclass(kind, RuntimeError | OSError):
            raise LostServerError(f"server {self.server}: {first_line(error[0])}")  # type: ignore[arg-type]

    def load(self, stored: Stored) -> _Loaded:
        """Upload a kernel with its parameters and workspace."""
        return _Loaded(self._device, stored, self._settings.threads)


def _borrow(settings: Settings) -> Device:
    """Return a session with the server of the settings, or with a free one of their tracker."""
    if settings.server is not None:
        try:
            return Device(settings.server, seconds=_SESSION)
        except TargetError as error:
            raise LostServerError(str(error)) from error
    assert settings.tracker is not None
    with _connect(settings.tracker) as connection:
        try:
            host, port, matchkey = _lend(connection, settings.tracker, settings.key)
            return Device((host, port), matchkey, _SESSION)
        except (OSError, ValueError, TargetError) as error:
            raise LostServerError(f"no server: {first_line(error)}") from error


class _Loaded:
    def __init__(self, device: Device, stored: Stored, threads: int) -> None:
        self._stored = stored
        self._device = device
        self._module = device.load(stored.folder / "kernel.so", threads)
        arrays = (np.array([0, 1], np.int32), stored.parameters, stored.workspace)
        self._tensors = [device.tensor(array) for array in arrays]

    def first_output(self) -> NDArray[Any]:
        status = self._module[self._stored.entry](*self._tensors)
        if status:
            raise RuntimeError(f"the kernel failed with status {status}")
        return self._stored.output(self._tensors[2].numpy()).copy()

    def seconds(self, count: int) -> float:
        clock = self._device.clock(self._module, self._stored.entry, count)
        return float(clock(*self._tensors)[0]) * count

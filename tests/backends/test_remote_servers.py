"""Servers and their addresses: who listens, who is let in, and how a server ends."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from planish.backends.remote import Device
from planish.backends.remote import address as addresses
from planish.backends.remote import device as devices
from planish.backends.remote.address import parse_address, require_server
from planish.backends.remote.server import listen
from planish.ir import OptionError, TargetError
from tests.servers import rpc_server

Address = tuple[str, int]


@pytest.fixture(scope="module")
def server() -> Iterator[Address]:
    with rpc_server() as (address, _):
        yield address


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[Address]:
    """A server of another kind: accepts one client and does what it is told."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield ("127.0.0.1", server.getsockname()[1])
        thread.join()


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(TargetError) as error:
            Device(("127.0.0.1", port))
    assert str(error.value) == (
        f"no RPC server answers: Connection refused; at 127.0.0.1:{port}; start one there: "
        f"python -m planish.rpc_server --host 0.0.0.0 --port {port}"
    )


def test_another_protocol() -> None:
    with (
        answering(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request")) as address,
        pytest.raises(TargetError, match="this is no RPC server"),
    ):
        require_server(address)
    with (
        answering(lambda connection: None) as address,
        pytest.raises(TargetError, match=r"this is no RPC server|reset by peer"),
    ):
        require_server(address)


def test_a_server_that_is_busy(server: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "ANSWER", 0.3)
    busy = r"no answer within 0.3 s; .*busy with another client"
    with Device(server), pytest.raises(TargetError, match=busy):
        Device(server)
    monkeypatch.undo()
    with Device(server) as device:
        assert device.describe() is not None


def test_an_unknown_host() -> None:
    with pytest.raises(TargetError, match="no RPC server answers"):
        require_server(("no-such-host.invalid", 9090))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9090",
        "host:",
        ":9090",
        "host:port",
        "host:0",
        "h:70000",
        "a..b:9090",
        "x" * 70 + ":1",
        "h:\u0669",
    ],
)
def test_a_device_is_host_and_port(text: str) -> None:
    with pytest.raises(OptionError, match="is not host:port; write board:9090"):
        parse_address(text, "device", "board:9090")


def test_a_port_that_is_taken(server: Address) -> None:
    with pytest.raises(TargetError, match="can't listen: Address already in use"):
        listen(*server)
    with pytest.raises(OptionError, match="can't listen on port 70000; give a --port from 0"):
        listen("127.0.0.1", 70000)
    done = subprocess.run(
        [sys.executable, "-m", "planish.rpc_server", "--port", str(server[1])],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Address already in use" in done.stderr


@pytest.mark.parametrize("host", ["", "[]"])
def test_no_host(host: str) -> None:
    with pytest.raises(OptionError, match="the host is empty; give a --host"):
        listen(host, 0)


@pytest.mark.parametrize("host", ["a..b", "no-such-host.invalid", "192.0.2.1"])
def test_a_host_of_others(host: str) -> None:
    with pytest.raises(TargetError, match=rf"can't listen: .*; at {host}:0; give a --host of this"):
        listen(host, 0)


def test_the_sixth_protocol() -> None:
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    with listen("::1", 0) as listening:
        assert listening.family is socket.AF_INET6
        assert listening.getsockname()[0] == "::1"
    assert addresses.address_text(("::1", 7)) == "[::1]:7"


@pytest.mark.parametrize("seconds", ["", "abc", "inf", "nan", "1e300", "-1"])
def test_a_client_with_no_time(server: Address, seconds: str) -> None:
    key = f"client: -timeout={seconds}".encode()
    with socket.create_connection(server) as connection:
        connection.sendall(struct.pack("<ii", addresses.MAGIC, len(key)) + key)
        assert connection.recv(4) == struct.pack("<i", addresses.MISMATCH)
    require_server(server)


def handshake(connection: socket.socket) -> None:
    """Let a client in, as a server does."""
    _, length = struct.unpack("<ii", connection.recv(8, socket.MSG_WAITALL))
    connection.recv(length, socket.MSG_WAITALL)
    connection.sendall(struct.pack("<ii", addresses.MAGIC, 7) + b"server:")


def test_a_server_that_begins_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "START", 0.5)
    monkeypatch.setattr(devices, "require_server", lambda address: None)
    done = threading.Event()

    def silent(connection: socket.socket) -> None:
        handshake(connection)
        done.wait(30)

    with answering(silent) as address:
        with pytest.raises(TargetError, match=r"began no session within 0.5 s; .*server's output"):
            Device(address)
        done.set()
    with (
        answering(lambda connection: None) as address,
        pytest.raises(TargetError, match=r"^the server began no session; at [^;]*; look at the"),
    ):
        Device(address)


@pytest.mark.parametrize("address", ["127.0.0.1:9391", ("h", "9391"), ("h", 0), ("a..b", 1), ("",)])
def test_a_device_has_an_address(address: Any) -> None:
    with pytest.raises(OptionError, match=r"address is \(host, port\), not .*; write Device"):
        Device(address)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_server_that_is_told_to_end(number: signal.Signals, status: int, tmp_path: Path) -> None:
    with rpc_server(variables={**os.environ, "TMPDIR": str(tmp_path)}) as (address, process):
        device = Device(address)
        assert any(tmp_path.iterdir())
        if number == signal.SIGINT:  # as Ctrl-C does
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait(20) == status
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        assert not any(tmp_path.iterdir())
        with pytest.raises(TargetError, match="session with the device ended"):
            device.describe()

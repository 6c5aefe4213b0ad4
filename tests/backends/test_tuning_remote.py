"""Tuning on servers behind an RPC tracker: real processes on this machine."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from planish.backends.builder import fill_plan
from planish.backends.plan import Plan
from planish.backends.targets import find_target
from planish.backends.tuning.database import Database, Record
from planish.backends.tuning.remote import list_servers, parse_tracker, require_servers
from planish.backends.tuning.tuner import Progress, tune_plan
from planish.ir.errors import OptionError, TargetError

pytestmark = pytest.mark.isa("avx2")
TARGET = find_target("x86-64-v3")
KEY = "board"
Server = subprocess.Popen[bytes]

_MISSING = [
    name for name in ("cloudpickle", "psutil", "tornado") if importlib.util.find_spec(name) is None
]
needs_rpc = pytest.mark.skipif(bool(_MISSING), reason=f"needs {_MISSING}: planish[rpc]")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(module: str, *options: str) -> Server:
    """Start a process in a group of its own: a server has children."""
    words = [sys.executable, "-m", f"tvm.exec.{module}", "--host", "127.0.0.1", *options]
    return subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def kill(process: Server) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def park() -> Iterator[tuple[tuple[str, int], dict[str, Server]]]:
    """A tracker, and its two servers by address."""
    ports = [free_port() for _ in range(3)]
    address = f"127.0.0.1:{ports[0]}"
    started = [start("rpc_tracker", "--port", str(ports[0]), "--port-end", str(ports[0] + 1))]
    for port in ports[1:]:
        ends = ("--port", str(port), "--port-end", str(port + 1))
        started.append(start("rpc_server", *ends, "--tracker", address, "--key", KEY))
    tracker = parse_tracker(address)
    names = [f"127.0.0.1:{port}" for port in ports[1:]]
    try:
        _wait(tracker, names, started)
        yield tracker, dict(zip(names, started[1:], strict=True))
    finally:
        for process in started:
            kill(process)


def _wait(tracker: tuple[str, int], names: list[str], started: list[Server]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert all(process.poll() is None for process in started), "a server ended by itself"
        try:
            if list_servers(tracker, KEY) == sorted(names):
                return
        except TargetError:
            pass
        time.sleep(0.2)
    raise AssertionError("the servers did not register")


@pytest.fixture
def plan(builder: Any) -> Plan:
    b = builder(3)
    x = b.input(torch.uint8, (1, 32, 10, 10))
    first = b.conv(x, (32, 32, 3, 3), padding=(1, 1, 1, 1))
    plan = Plan(TARGET, 1)
    fill_plan(b.finish(b.conv(first, (48, 32, 1, 1))), plan)
    return plan


def records(database: Database) -> list[Record]:
    return [record for key in database.workloads for record in database.records(key)]


@needs_rpc
@pytest.mark.slow
def test_servers_share_the_work_and_one_may_die(
    park: tuple[tuple[str, int], dict[str, Server]], plan: Plan, tmp_path: Path
) -> None:
    tracker, servers = park
    first, second = servers
    killed_at: list[int] = []
    database = Database(tmp_path / "db", TARGET, create=True)

    def kill_the_first(progress: Progress) -> None:
        del progress
        used = {record.device for record in records(database)}
        if len(used) == 2 and not killed_at:
            kill(servers[first])
            killed_at.append(len(records(database)))

    result = tune_plan(plan, database, trials=24, tracker=tracker, key=KEY, progress=kill_the_first)
    offered = sum(layer.offered for layer in result.layers)
    assert result.trials == min(24, offered)
    assert result.errors == []
    assert all(layer.tuned_us is not None for layer in result.layers)
    # Both were used; what came after its death came from the other one.
    assert killed_at
    assert killed_at[0] < result.trials
    devices = [record.device for record in records(database)]
    assert set(devices) == {f"{KEY} {first}", f"{KEY} {second}"}
    # Of the dead one there is at most what it had finished, which another thread writes down.
    assert devices[killed_at[0] :].count(f"{KEY} {first}") <= 1
    assert list_servers(tracker, KEY) == [second]

    def kill_the_second(progress: Progress) -> None:
        del progress
        kill(servers[second])

    fresh = Database(tmp_path / "fresh", TARGET, create=True)
    with pytest.raises(TargetError, match="no server with key 'board'"):
        tune_plan(plan, fresh, trials=24, tracker=tracker, key=KEY, progress=kill_the_second)
    assert [record.error for record in records(fresh)] == [None]


@needs_rpc
@pytest.mark.slow
def test_an_unknown_key(park: tuple[tuple[str, int], dict[str, Server]]) -> None:
    tracker, _ = park
    begun = time.monotonic()
    with pytest.raises(TargetError, match=r"no server with key 'phone'; .*--key phone"):
        require_servers(tracker, "phone")
    assert time.monotonic() - begun < 5


def test_no_tracker(plan: Plan, tmp_path: Path) -> None:
    tracker = ("127.0.0.1", free_port())
    with pytest.raises(TargetError, match=rf"no RPC tracker answers.*127.0.0.1:{tracker[1]}"):
        tune_plan(plan, Database(tmp_path, TARGET, create=True), trials=1, tracker=tracker, key=KEY)


def test_something_else_than_a_tracker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        port = server.getsockname()[1]
        import threading

        def answer() -> None:
            connection, _ = server.accept()
            connection.sendall(b"HTTP")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(TargetError, match="this is no RPC tracker"):
            list_servers(("127.0.0.1", port), KEY)
        thread.join()


@pytest.mark.parametrize("text", ["", "9190", "host:", ":9190", "host:port", "host:0", "h:70000"])
def test_a_tracker_is_host_and_port(text: str) -> None:
    with pytest.raises(OptionError, match="is not host:port"):
        parse_tracker(text)

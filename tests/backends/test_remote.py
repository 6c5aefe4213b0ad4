"""Artifacts on a device: a real server process on this machine, and everything that goes wrong."""

import importlib.util
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import Artifact, build, matching
from planish.backends.builder import fill_plan
from planish.backends.container import Container, write_container
from planish.backends.cpu import cpu_flags, machine
from planish.backends.plan import Plan
from planish.backends.remote import Device, RemoteArtifact, load_remote
from planish.backends.remote.targets import target_for
from planish.backends.targets import find_target
from planish.backends.targets.native import best_for
from planish.backends.tuning.database import Database
from planish.backends.tuning.tuner import tune_plan
from planish.ir import ArtifactError, OptionError, TargetError
from tests.servers import kill, rpc_server, tvm_server

pytestmark = pytest.mark.isa("avx2")
Address = tuple[str, int]
TARGET = "x86-64-v3"
# What TVM calls in a library, from its C interface.
TRAP = 'extern "C" int __tvm_ffi_planish_main(void*, void*, int, void*) { __builtin_trap(); }'


@pytest.fixture(scope="module")
def server() -> Iterator[Address]:
    with rpc_server() as (address, _):
        yield address


@pytest.fixture
def device(server: Address) -> Iterator[Device]:
    with Device(server) as device:
        yield device


@pytest.fixture(scope="module")
def compiled(builder: Any) -> Artifact:
    b = builder(7)
    x = b.input(torch.uint8, (2, 16, 9, 9))
    first = b.conv(x, (32, 16, 3, 3), padding=(1, 1, 1, 1), x_zero=7)
    return build(b.finish(first, b.conv(first, (24, 32, 1, 1), x_zero=3)), TARGET)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, 16, 9, 9)).astype(np.uint8)


def equal(left: Any, right: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def with_library(artifact: Artifact, library: bytes) -> bytes:
    """Return an artifact with another library."""
    container = Container(artifact.content, "memory")
    manifest = {k: v for k, v in container.manifest.items() if k not in ("format", "version")}
    return write_container(
        manifest, container.tensors(), {TARGET: (container.plan(TARGET), library)}
    )


def test_the_same_values_as_here(device: Device, compiled: Artifact, tmp_path: Path) -> None:
    compiled.save(tmp_path / "model.planish")
    there = load_remote(tmp_path / "model.planish", device)
    assert (there.target, there.runs_here) == (TARGET, True)
    for seed in range(5):
        assert equal(there(image(seed)), compiled(image(seed)))
    assert equal(there(x0=image()), compiled(image()))


@pytest.mark.parametrize("threads", [2, 3])
def test_several_threads(device: Device, builder: Any, threads: int) -> None:
    b = builder(8)
    x = b.input(torch.uint8, (1, 32, 40, 40))
    artifact = build(
        b.finish(b.conv(x, (64, 32, 3, 3), padding=(1, 1, 1, 1))), TARGET, threads=threads
    )
    there = RemoteArtifact(artifact.content, "model", device)
    values = b.values(torch.uint8, (1, 32, 40, 40)).numpy()
    assert equal(there(values), artifact(values))


def test_a_device_tells_what_it_is(server: Address) -> None:
    with Device(server) as device:
        processor = device.describe()
    assert processor is not None
    assert (processor.machine, processor.cpu_flags) == (machine(), cpu_flags())


def test_the_clock_of_the_device(device: Device, compiled: Artifact) -> None:
    there = RemoteArtifact(compiled.content, "model", device)
    begun = time.perf_counter()
    timing = there.bench(image(), calls=20)
    assert timing.calls == 20
    assert 0 < timing.minimum <= timing.median
    assert 20 * timing.minimum < 1e3 * (time.perf_counter() - begun)
    assert there.bench(seconds=0.01).calls >= 1


def test_inputs_are_checked_here(device: Device, compiled: Artifact) -> None:
    there = RemoteArtifact(compiled.content, "model", device)
    with pytest.raises(Exception, match="input 'x0' is uint8") as error:
        there(image()[:1])
    assert type(error.value).__name__ == "DataError"
    assert equal(there(image()), compiled(image()))


def test_targets_that_the_device_lacks(
    device: Device, compiled: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="no code for target 'armv8'; at m; it has x86-64-v3"):
        RemoteArtifact(compiled.content, "m", device, "armv8")
    old = matching.Processor("x86_64", frozenset({"sse2"}), "the device")
    monkeypatch.setattr(Device, "describe", lambda self: old)
    with pytest.raises(ArtifactError, match=r"'x86-64-v3' needs abm, .*that the device has"):
        RemoteArtifact(compiled.content, "m", device)
    other = matching.Processor("riscv64", frozenset(), "the device")
    monkeypatch.setattr(Device, "describe", lambda self: other)
    with pytest.raises(ArtifactError, match="is for x86_64, the device is riscv64"):
        RemoteArtifact(compiled.content, "m", device)


def test_a_device_that_does_not_tell(
    device: Device, compiled: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "describe", lambda self: None)
    for wanted in (None, "native"):
        with pytest.raises(OptionError, match=r"doesn't tell what it is; .* targets: x86-64-v3"):
            RemoteArtifact(compiled.content, "m", device, wanted)
    with pytest.raises(OptionError, match="no code for target 'armv8'; at m; name one of"):
        RemoteArtifact(compiled.content, "m", device, "armv8")
    assert equal(RemoteArtifact(compiled.content, "m", device, TARGET)(image()), compiled(image()))


def test_what_to_compile_for(server: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    here = matching.Processor(machine(), cpu_flags())
    assert target_for(server, "native") == best_for(here.machine, here.cpu_flags)
    assert target_for(server, TARGET) == find_target(TARGET)
    old = matching.Processor("x86_64", frozenset({"sse2"}), "the device")
    monkeypatch.setattr(Device, "describe", lambda self: old)
    with pytest.raises(TargetError, match="the device can't run this target: 'x86-64-v3' needs"):
        target_for(server, TARGET)
    monkeypatch.setattr(Device, "describe", lambda self: None)
    with pytest.raises(OptionError, match=r"doesn't tell what it is; .*name its target"):
        target_for(server, "native")
    assert target_for(server, TARGET).name == TARGET


def test_code_that_the_processor_cannot_run(
    server: Address, compiled: Artifact, tmp_path: Path
) -> None:
    source, library = tmp_path / "trap.cc", tmp_path / "trap.so"
    source.write_text(TRAP)
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", library], check=True)
    with Device(server) as device, pytest.raises(TargetError) as error:
        RemoteArtifact(with_library(compiled, library.read_bytes()), "m", device)(image())
    assert "the session with the device ended while it ran 'x86-64-v3'" in str(error.value)
    assert f"at 127.0.0.1:{server[1]}; look at the server's output" in str(error.value)
    assert "\n" not in str(error.value)
    # The server is there for the next client.
    with Device(server) as device:
        again = RemoteArtifact(compiled.content, "m", device)
        assert equal(again(image()), compiled(image()))


def test_a_library_that_cannot_be_loaded(device: Device, compiled: Artifact) -> None:
    content = with_library(compiled, b"this is no library")
    with pytest.raises(TargetError, match=r"can't run 'x86-64-v3': .*file too short"):
        RemoteArtifact(content, "m", device)


def test_a_server_that_is_killed(compiled: Artifact) -> None:
    with rpc_server() as (address, process):
        there = RemoteArtifact(compiled.content, "m", Device(address))
        assert equal(there(image()), compiled(image()))
        kill(process)
        with pytest.raises(TargetError, match="session with the device ended"):
            there(image())
        with pytest.raises(TargetError, match="no RPC server answers: Connection refused"):
            Device(address)


def test_a_session_that_is_too_long(server: Address, compiled: Artifact) -> None:
    with Device(server, seconds=1) as device:
        there = RemoteArtifact(compiled.content, "m", device)
        assert equal(there(image()), compiled(image()))
        time.sleep(1.5)
        with pytest.raises(TargetError, match="the session with the device ended"):
            there(image())
    with Device(server) as device:
        assert device.describe() is not None


@pytest.mark.skipif(importlib.util.find_spec("psutil") is None, reason="needs planish[rpc]")
@pytest.mark.slow
def test_the_server_of_tvm(compiled: Artifact) -> None:
    with tvm_server() as address, Device(address) as device:
        assert device.describe() is None
        with pytest.raises(OptionError, match="the device doesn't tell what it is"):
            RemoteArtifact(compiled.content, "m", device)
        there = RemoteArtifact(compiled.content, "m", device, TARGET)
        assert equal(there(image()), compiled(image()))
        assert there.bench(image(), calls=3).calls == 3


def test_noise_does_not_stop_a_server(server: Address, compiled: Artifact) -> None:
    for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x71\xf2\x0f\x00\xff\xff\xff\x7f"):
        with socket.create_connection(server) as connection:
            connection.sendall(noise)
    with Device(server) as device:
        assert equal(RemoteArtifact(compiled.content, "m", device)(image()), compiled(image()))


def test_a_session_that_breaks_at_once(compiled: Artifact) -> None:
    with rpc_server() as (address, process):
        device = Device(address)
        kill(process)
        gone = "the session with the device ended before it said what it is; at 127.0.0.1"
        with pytest.raises(TargetError, match=gone):
            device.describe()
        with pytest.raises(TargetError, match=gone):
            RemoteArtifact(compiled.content, "m", device)


def test_a_target_for_a_gpu(
    device: Device, compiled: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="target 'cuda-sm80' is a GPU's, and a device runs code"):
        target_for(("127.0.0.1", 1), "cuda-sm80")
    container = Container(compiled.content, "memory")
    manifest = {k: v for k, v in container.manifest.items() if k not in ("format", "version")}
    manifest["targets"][0] |= {"machine": "cuda", "capability": [8, 0]}
    plan = {**container.plan(TARGET), "setup": [], "launches": [], "library": "library.so"}
    parts = {TARGET: (plan, container.library(TARGET))}
    monkeypatch.setattr(Device, "describe", lambda self: None)
    with pytest.raises(OptionError, match=r"target 'x86-64-v3' is a GPU's.*; at m; name a target"):
        RemoteArtifact(write_container(manifest, container.tensors(), parts), "m", device, TARGET)


def test_prepared_calls(device: Device, compiled: Artifact) -> None:
    there = RemoteArtifact(compiled.content, "m", device)
    once = there.prepared(image())
    assert once() == 0
    assert once() == 0
    for artifact in (there, compiled):
        for calls in (0, -1):
            with pytest.raises(OptionError, match=f"calls must be a whole number .*, not {calls}"):
                artifact.bench(image(), calls=calls)


@pytest.fixture
def plan(builder: Any) -> Plan:
    b = builder(3)
    x = b.input(torch.uint8, (1, 32, 10, 10))
    plan = Plan(find_target(TARGET), 1)
    fill_plan(b.finish(b.conv(x, (32, 32, 3, 3), padding=(1, 1, 1, 1))), plan)
    return plan


def test_tuning_on_one_device(server: Address, plan: Plan, tmp_path: Path) -> None:
    database = Database(tmp_path, plan.target, create=True)
    result = tune_plan(plan, database, trials=3, server=server)
    assert (result.trials, result.errors) == (3, [])
    records = [record for key in database.workloads for record in database.records(key)]
    assert {record.device for record in records} == {f"127.0.0.1:{server[1]}"}
    assert all(record.us is not None for record in records)


@pytest.mark.slow
def test_tuning_ends_when_the_device_is_lost(plan: Plan, tmp_path: Path) -> None:
    database = Database(tmp_path, plan.target, create=True)
    with (
        rpc_server() as (address, process),
        pytest.raises(TargetError, match="no RPC server answers: Connection refused"),
    ):
        tune_plan(plan, database, trials=8, server=address, progress=lambda _: kill(process))
    records = [record for key in database.workloads for record in database.records(key)]
    assert [record.error for record in records] == [None]

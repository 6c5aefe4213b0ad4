"""What surrounds the kernels on emulated ARM: the C++ program, and a device behind RPC."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from planish.backends import Artifact, Reference, build, find_target
from planish.backends.builder import fill_plan
from planish.backends.deployment import unpack
from planish.backends.link import Toolchain
from planish.backends.plan import Plan
from planish.backends.remote import Device, RemoteArtifact
from planish.backends.remote.targets import target_for
from planish.backends.tuning.database import Database
from planish.backends.tuning.tuner import tune_plan
from planish.cli.app import app
from planish.ir import ArtifactError, Graph, TargetError
from tests.arm import Emulated
from tests.arm.environment import require_compiler
from tests.deployed import build_example, deploy
from tests.servers import rpc_server

pytestmark = pytest.mark.arm
Processors = Callable[[str], Emulated]
Address = tuple[str, int]
TARGETS = ["armv8-i8mm", "armv8-dotprod", "armv8"]


def network(builder: Any) -> Graph:
    b = builder(4)
    x = b.input(torch.uint8, (1, 32, 24, 24))
    first = b.conv(x, (64, 32, 3, 3), padding=(1, 1, 1, 1), x_zero=7)
    return b.finish(b.conv(first, (24, 64, 1, 1)), first)


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 32, 24, 24)).astype(np.uint8)


def equal(left: Any, right: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.fixture(scope="module")
def program(emulated: Processors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    packages = emulated("cortex-a72").environment.site
    out = tmp_path_factory.mktemp("program") / "deploy"
    return build_example(out, f"CXX={require_compiler()}", f"PACKAGES={packages}")


@pytest.mark.parametrize(
    ("target", "cpu", "threads"),
    [("armv8", "cortex-a72", 1), ("armv8-dotprod", "cortex-a76", 2), ("armv8-i8mm", "max", 1)],
)
def test_the_program_in_cpp(
    emulated: Processors,
    builder: Any,
    program: Path,
    tmp_path: Path,
    target: str,
    cpu: str,
    threads: int,
) -> None:
    graph, processor = network(builder), emulated(cpu)
    artifact = build(graph, target, threads=threads)
    artifact.save(tmp_path / "model.planish")
    assert unpack(tmp_path / "model.planish", tmp_path) == target
    assert f"needs_runtime {threads - 1}" in (tmp_path / "interface.txt").read_text()
    command = processor.command(program)
    for seed in range(3):
        found = deploy(command, tmp_path, artifact, [image(seed)], processor.variables())
        assert equal(found, Reference(graph)(image(seed)))


@pytest.fixture(scope="module")
def server(emulated: Processors) -> Iterator[Address]:
    processor = emulated("cortex-a76")
    python = processor.command(processor.environment.python)
    with rpc_server(python, processor.variables()) as (address, _):
        yield address


@pytest.fixture(scope="module")
def artifact(builder: Any) -> Artifact:
    return build(network(builder), [*TARGETS, "x86-64-v3"])


def test_a_device_runs_the_best_target(server: Address, artifact: Artifact, builder: Any) -> None:
    reference = Reference(network(builder))
    with Device(server) as device:
        there = RemoteArtifact(artifact.content, "model", device)
        assert there.target == "armv8-dotprod"
        plainest = RemoteArtifact(artifact.content, "model", device, "armv8")
        for seed in range(3):
            assert equal(there(image(seed)), reference(image(seed)))
            assert equal(plainest(image(seed)), reference(image(seed)))
        timing = there.bench(image(0), calls=3)
        assert 0 < timing.minimum <= timing.median


def test_a_device_refuses_what_it_lacks(server: Address, artifact: Artifact) -> None:
    assert target_for(server, "native") == find_target("armv8-dotprod")
    with pytest.raises(TargetError, match="the device can't run this target: 'armv8-i8mm' needs i"):
        target_for(server, "armv8-i8mm")
    with Device(server) as device:
        with pytest.raises(ArtifactError, match="is for x86_64, the device is aarch64"):
            RemoteArtifact(artifact.content, "model", device, "x86-64-v3")
        with pytest.raises(ArtifactError, match="'armv8-i8mm' needs i8mm"):
            RemoteArtifact(artifact.content, "model", device, "armv8-i8mm")


def test_an_instruction_that_the_processor_lacks(
    server: Address, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "describe", lambda self: None)
    with Device(server) as device:
        there = RemoteArtifact(artifact.content, "model", device, "armv8-i8mm")
        with pytest.raises(TargetError, match="the session with the device ended while it ran"):
            there(image(0))
    monkeypatch.undo()
    with Device(server) as device:
        assert equal(
            RemoteArtifact(artifact.content, "model", device, "armv8")(image(0)),
            RemoteArtifact(artifact.content, "model", device)(image(0)),
        )


def test_a_device_measures_for_tuning(server: Address, builder: Any, tmp_path: Path) -> None:
    plan = Plan(find_target("armv8-dotprod"), 1)
    fill_plan(network(builder), plan)
    unlinked = Plan(plan.target, 1, toolchain=Toolchain("no-such-compiler"))
    fill_plan(network(builder), unlinked)
    empty = Database(tmp_path / "empty", plan.target, create=True)
    with pytest.raises(TargetError, match="no compiler 'no-such-compiler' to link code for aarch"):
        tune_plan(unlinked, empty, trials=1, server=server)
    database = Database(tmp_path / "db", plan.target, create=True)
    result = tune_plan(plan, database, trials=3, server=server)
    assert (result.trials, result.errors) == (3, [])
    measured = [layer for layer in result.layers if layer.measured]
    assert all(layer.untuned_us and layer.tuned_us for layer in measured)
    assert sum(layer.measured for layer in measured) == 3


def test_the_command_line(server: Address, artifact: Artifact, tmp_path: Path) -> None:
    model, inputs, output = (tmp_path / name for name in ("m.planish", "in.npy", "out.npz"))
    artifact.save(model)
    np.save(inputs, image(0))
    rpc = f"{server[0]}:{server[1]}"
    words = ["run", model, "--input", inputs, "-o", output, "--rpc", rpc, "--json"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["target"] == "armv8-dotprod"
    with np.load(output) as found:
        assert equal(found.values(), Artifact(artifact.content, target="x86-64-v3")(image(0)))
    bench = ["bench", str(model), "--rpc", rpc, "--runs", "3", "--json"]
    done = CliRunner().invoke(app, bench)
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    assert (result["target"], result["runs"]) == ("armv8-dotprod", 3)

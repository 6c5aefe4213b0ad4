"""What surrounds the kernels on emulated ARM: the C++ program, and a device behind RPC."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import Artifact, Reference, build
from planish.backends.builder import fill_plan
from planish.backends.deployment import unpack
from planish.backends.plan import Plan
from planish.backends.remote.artifact import RemoteArtifact
from planish.backends.remote.device import Device
from planish.backends.tuning.database import Database
from planish.backends.tuning.tuner import tune_plan
from planish.ir import Graph
from tests.arm import Emulated
from tests.arm.environment import require_compiler
from tests.arm.plain import plain_arm
from tests.deployed import build_example, deploy
from tests.servers import rpc_server

pytestmark = pytest.mark.arm
Processors = Callable[[str], Emulated]
Address = tuple[str, int]


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", require_compiler())


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


@pytest.mark.parametrize("threads", [1, 2])
def test_the_program_in_cpp(
    emulated: Processors, builder: Any, program: Path, tmp_path: Path, threads: int
) -> None:
    processor = emulated("cortex-a72")
    graph = network(builder)
    artifact = build(graph, plain_arm(), threads=threads)
    artifact.save(tmp_path / "model.planish")
    unpack(tmp_path / "model.planish", tmp_path)
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


@pytest.fixture
def artifact(builder: Any) -> Artifact:
    return build(network(builder), plain_arm())


def test_a_device_runs_and_measures(server: Address, artifact: Artifact, builder: Any) -> None:
    reference = Reference(network(builder))
    with Device(server) as device:
        processor = device.describe()
        assert processor is not None
        assert processor.machine == "aarch64"
        there = RemoteArtifact(artifact.content, "model", device)
        assert there.target == "plain-arm"
        for seed in range(3):
            assert equal(there(image(seed)), reference(image(seed)))
        timing = there.bench(image(0), calls=3)
        assert 0 < timing.minimum <= timing.median


def test_a_device_measures_for_tuning(server: Address, builder: Any, tmp_path: Path) -> None:
    plan = Plan(plain_arm(), 1)
    fill_plan(network(builder), plan)
    database = Database(tmp_path, plan.target, create=True)
    result = tune_plan(plan, database, trials=3, server=server)
    assert (result.trials, result.errors) == (3, [])
    assert all(layer.tuned_us for layer in result.layers[:1])

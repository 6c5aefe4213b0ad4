"""Whole networks for GPUs, emulated, and on a GPU where there is one: equal to the reference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planish.backends import Artifact, Reference, build, find_target, load
from planish.backends.cuda.driver import compute_capability
from planish.backends.cuda.emulated import EmulatedNetwork
from planish.backends.matching import obstacle
from planish.backends.target import describe_target
from planish.ir import Graph
from tests.backends.cuda.networks import NETWORKS, integer_graph

TARGETS = ("cuda-sm61", "cuda-sm75", "cuda-sm80", "cuda-sm90")


def assert_equal(graph: Graph, run: Callable[..., Any], inputs: int) -> None:
    """Hold some inputs against the reference; their results must not be all alike."""
    reference, seen = Reference(graph), set()
    shape = graph.inputs[0].shape
    for seed in range(inputs):
        x = np.random.default_rng(seed).random([s or 1 for s in shape], dtype=np.float32)
        expected = reference(x)
        assert np.array_equal(run(x), expected)
        seen.add(expected.tobytes())
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("name", "target"),
    [("ResNet-20", "cuda-sm80"), ("transformer", "cuda-sm80"), ("transformer", "cuda-sm61")],
)
def test_a_network_equals_the_reference(name: str, target: str) -> None:
    graph = integer_graph(name)
    assert_equal(graph, EmulatedNetwork(graph, target), inputs=3)


@pytest.mark.sweep
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_on_every_target(name: str, target: str) -> None:
    graph = integer_graph(name)
    assert_equal(graph, EmulatedNetwork(graph, target), inputs=20)


@pytest.mark.cuda
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_on_a_gpu(name: str, batch: int, tmp_path: Path) -> None:
    graph = integer_graph(name, batch)
    build(graph, gpu_target()).save(tmp_path / "network.planish")
    loaded = load(tmp_path / "network.planish")
    assert_equal(graph, loaded, inputs=20)
    assert loaded.bench(calls=5).median > 0


@pytest.mark.cuda
def test_two_artifacts_on_one_gpu_in_turns() -> None:
    graphs = [integer_graph(name) for name in ("ResNet-20", "transformer")]
    artifacts: list[Artifact] = [build(graph, gpu_target()) for graph in graphs]
    for _ in range(2):
        for graph, artifact in zip(graphs, artifacts, strict=True):
            assert_equal(graph, artifact, inputs=2)


def gpu_target() -> str:
    """Return the target of this machine's GPU; skip where planish has none for it."""
    fitting = [t for t in TARGETS if obstacle(describe_target(find_target(t))) is None]
    if not fitting:
        pytest.skip(f"no target for a GPU of compute capability {compute_capability()}")
    return fitting[-1]

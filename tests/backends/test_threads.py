"""Threads: an artifact's own, and those of Python that call it at once."""

import multiprocessing
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import Artifact, build
from planish.ir import Graph

planish = torch.ops.planish


def network(builder: Any, batch: int) -> Graph:
    """Layers large enough to share between threads, a residual, and a mean."""
    b = builder(4)
    x = b.input(torch.uint8, (batch, 16, 20, 20))
    x = b.conv(x, (64, 16, 3, 3), padding=(1,) * 4, x_zero=3)
    y = b.conv(x, (64, 64, 3, 3), padding=(1,) * 4, x_zero=9)
    y = b.call(planish.add_i8.default, x, y, 100, 90, 9000, 12000, 14, 50, 0, 255, torch.uint8)
    y = b.conv(y, (64, 1, 3, 3), padding=(1,) * 4, groups=64, x_zero=50)
    return b.finish(b.conv(y, (24, 64, 1, 1), stride=(2, 2)))


def image(seed: int, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, 16, 20, 20)).astype(np.uint8)


@pytest.fixture(scope="module")
def artifacts(builder: Any) -> dict[int, Artifact]:
    """By how many threads a call may use."""
    graph = network(builder, 1)
    return {count: build(graph, "native", threads=count) for count in (1, 2, 3)}


@pytest.fixture(scope="module")
def expected(builder: Any) -> list[np.ndarray]:
    graph = network(builder, 1)
    return [graph(torch.from_numpy(image(seed)))[0].numpy() for seed in range(12)]


def is_parallel(artifact: Artifact) -> bool:
    return any("parallel" in step["kernel"] for step in artifact.manifest["steps"])


def test_results_do_not_depend_on_threads(
    artifacts: dict[int, Artifact], expected: list[np.ndarray]
) -> None:
    assert [is_parallel(artifacts[count]) for count in (1, 2, 3)] == [False, True, True]
    # In turns: the thread's pool is set anew for each.
    for seed, want in enumerate(expected):
        for artifact in artifacts.values():
            assert np.array_equal(artifact(image(seed))[0], want)


@pytest.mark.parametrize("batch", [3, 8])
def test_a_batch_is_its_samples(builder: Any, expected: list[np.ndarray], batch: int) -> None:
    images = np.concatenate([image(seed) for seed in range(batch)])
    for threads in (1, 2):
        got = build(network(builder, batch), "native", threads=threads)(images)[0]
        assert np.array_equal(got, np.concatenate(expected[:batch]))


@pytest.mark.parametrize("threads", [1, 2])
def test_calls_at_once(
    artifacts: dict[int, Artifact], expected: list[np.ndarray], threads: int
) -> None:
    """Every thread has its own inputs, and all begin together, again and again."""
    callers, rounds = 4, 25
    artifact, together = artifacts[threads], threading.Barrier(callers)

    def call(caller: int) -> list[bool]:
        right = []
        for number in range(rounds):
            seed = (caller * 5 + number) % len(expected)
            together.wait(timeout=60)
            right.append(np.array_equal(artifact(image(seed))[0], expected[seed]))
        return right

    with ThreadPoolExecutor(callers) as pool:
        assert all(all(right) for right in pool.map(call, range(callers)))


def test_several_artifacts_at_once(
    artifacts: dict[int, Artifact], expected: list[np.ndarray]
) -> None:
    """Each calling thread switches between artifacts of one, two and three threads."""

    def call(number: int) -> bool:
        seed = number % len(expected)
        artifact = artifacts[1 + number % 3]
        return np.array_equal(artifact(image(seed))[0], expected[seed])

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(call, range(120)))


def test_calls_leave_each_other_their_results(artifacts: dict[int, Artifact]) -> None:
    first, second = artifacts[1](image(0))[0], artifacts[1](image(1))[0]
    assert not np.shares_memory(first, second)


def _in_child(artifact: Artifact, seed: int, results: Any) -> None:
    results.put(artifact(image(seed))[0])


def test_a_forked_process_calls_too(
    artifacts: dict[int, Artifact], expected: list[np.ndarray]
) -> None:
    """The pool's threads stay behind in the parent; the child must not wait for them."""
    artifacts[2](image(0))
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(artifacts[2], 1, results))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert np.array_equal(results.get(), expected[1])


COUNT = """
import os, sys
import numpy as np
from planish.backends import load

def workers(paths):
    before = len(os.listdir("/proc/self/task"))
    for path in paths:
        load(path)(np.zeros((1, 16, 20, 20), np.uint8))
    return len(os.listdir("/proc/self/task")) - before

load(sys.argv[1])  # TVM's own threads, whatever they are, are there before counting
print(workers(sys.argv[2:]))
"""


@pytest.mark.parametrize(("loaded", "more"), [([1], 0), ([2], 1), ([3], 2), ([3, 1, 2], 2)])
def test_as_many_threads_as_asked_for(
    artifacts: dict[int, Artifact], tmp_path: Path, loaded: list[int], more: int
) -> None:
    """Also where TVM by itself would take half of the processors for hyper-threads."""
    for count, artifact in artifacts.items():
        artifact.save(tmp_path / f"{count}.planish")
    paths = [str(tmp_path / f"{count}.planish") for count in [loaded[0], *loaded]]
    done = subprocess.run([sys.executable, "-c", COUNT, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == more

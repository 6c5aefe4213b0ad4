"""Memory, loop nests, tiles and kernel sharing."""

from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import Artifact, build
from planish.backends.layout import dense_layout, loop_nest, vector_layout
from planish.backends.lower.direct import split_channels
from planish.backends.memory import lifetimes, place_values
from planish.backends.plan import Plan
from planish.backends.targets import find_target
from planish.backends.value import Value


def test_layout_of_an_image_with_a_border() -> None:
    layout = vector_layout((2, 10, 4, 5), "uint8", halo=(1, 2, 3, 0))
    assert layout.steps == (8 * 7 * 16, 1, 7 * 16, 16)
    assert layout.base == 7 * 16 + 2 * 16
    assert layout.size == 2 * 8 * 7 * 16
    assert vector_layout((1, 3, 4, 5), "uint8", compact=True).steps == (60, 1, 15, 3)


def test_loop_nest_merges_what_lies_side_by_side() -> None:
    dense = dense_layout((2, 3, 4), "uint8").steps
    assert loop_nest((2, 3, 4), dense, dense) == ((1, 1, 1, 24), [(0, 0, 0, 1), (0, 0, 0, 1)])
    sizes, steps = loop_nest((2, 3, 4), dense, (12, 1, 3), inner=1) or ((), [])
    assert sizes == (1, 2, 4, 3)
    assert steps == [(0, 12, 1, 4), (0, 12, 3, 1)]


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("vectors", [1, 2, 3, 6, 9])
def test_blocks_hold_every_channel_once(lanes: int, vectors: int) -> None:
    for channels in range(1, 140):
        parts = split_channels(channels, lanes, vectors)
        held = [c for part in parts for c in range(part.first, part.first + part.count)]
        assert held == list(range(channels))
        for part in parts:
            stored = part.blocks * part.vectors * lanes - (lanes // 2 if part.narrow else 0)
            assert part.count > 0
            assert part.first + stored <= -(-channels // 8) * 8


def random_plan(seed: int) -> Plan:
    plan, random = Plan(find_target("x86-64-v3"), 1), np.random.default_rng(seed)
    values = [
        Value(f"v{i}", dense_layout((int(random.integers(1, 900)),), "uint8")) for i in range(40)
    ]
    for step in range(60):
        near = [values[i] for i in range(40) if abs(i * 1.5 - step) < random.integers(1, 12)]
        plan.call("kernel", [*near], [], "")
    return plan


@pytest.mark.parametrize("seed", range(10))
def test_values_that_live_together_do_not_overlap(seed: int) -> None:
    plan = random_plan(seed)
    size, spans = place_values(plan), lifetimes(plan)
    assert size < sum(value.nbytes for value in spans)
    for value, (first, last) in spans.items():
        assert value.offset % 64 == 0
        assert value.offset + value.nbytes <= size
        for other, (begin, end) in spans.items():
            if other is not value and begin <= last and first <= end:
                apart = value.offset + value.nbytes <= other.offset
                assert apart or other.offset + other.nbytes <= value.offset


def layer_kernels(artifact: Artifact) -> list[str]:
    """The kernels of an artifact that multiply, in order."""
    names = [step["kernel"] for step in artifact.manifest["steps"]]
    return [name for name in names if not name.startswith(("fill_halo", "map"))]


def test_equal_layers_share_a_kernel(builder: Any) -> None:
    b = builder(1)
    x = b.input(torch.uint8, (1, 16, 8, 8))
    for _ in range(6):
        x = b.conv(x, (16, 16, 5, 5), padding=(2, 2, 2, 2), x_zero=3)
        x.args = (*x.args[:-4], 3, 0, 255, torch.uint8)
    artifact = build(b.finish(x), "x86-64-v3")
    kernels = layer_kernels(artifact)
    assert len(kernels) == 6
    assert len(set(kernels)) == 2  # the last one's result has no border
    one_layer = 12 * 12 * 16
    assert artifact.manifest["workspace_bytes"] < 4 * (one_layer + 256)


def test_large_layers_run_in_parallel_and_small_ones_do_not(builder: Any) -> None:
    b = builder(1)
    x = b.input(torch.uint8, (1, 32, 32, 32))
    y = b.conv(x, (64, 32, 5, 5), padding=(2, 2, 2, 2), x_zero=3)
    y = b.conv(y, (8, 64, 1, 1), stride=(8, 8))
    graph, values = b.finish(y), b.values(torch.uint8, (1, 32, 32, 32))
    expected = graph(values)[0].numpy()
    for target in ("x86-64-v3", "native"):
        artifact = build(graph, target, threads=2)
        assert ["parallel" in name for name in layer_kernels(artifact)] == [True, False]
        assert np.array_equal(artifact(values.numpy())[0], expected)

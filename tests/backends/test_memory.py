"""Activation memory: what a plan takes, and what it is measured against."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import Memory, build
from planish.backends.layout import SLACK, dense_layout
from planish.backends.memory import least_bytes, lifetimes, place_values, unplanned_bytes
from planish.backends.plan import Plan
from planish.backends.targets import find_target
from planish.backends.value import Value


def values(*sizes: int) -> list[Value]:
    """Values of so many bytes, their slack among them."""
    return [Value(f"v{i}", dense_layout((n - SLACK,), "uint8")) for i, n in enumerate(sizes)]


def plan_of(*steps: list[Value]) -> Plan:
    plan = Plan(find_target("x86-64-v3"), 1)
    for step in steps:
        plan.call("kernel", step, [], "")
    return plan


def test_a_chain_needs_its_widest_pair() -> None:
    a, b, c, d = values(256, 512, 1024, 128)
    plan = plan_of([a, b], [b, c], [c, d])
    spans = lifetimes(plan)
    assert [spans[v] for v in (a, b, c, d)] == [(0, 0), (0, 1), (1, 2), (2, 2)]
    assert unplanned_bytes(spans) == 256 + 512 + 1024 + 128
    assert least_bytes(spans) == 512 + 1024
    # The largest lies at 0, b behind it; a and d, which neither lives with the other, share.
    assert place_values(plan) == 512 + 1024 + 64
    assert [v.offset for v in (c, b, a, d)] == [0, 1024, 0, 1024]


def test_a_residual_lives_until_it_is_added() -> None:
    x, left, right, total = values(128, 256, 256, 128)
    plan = plan_of([x, left], [left, right], [x, right, total])
    spans = lifetimes(plan)
    assert spans[x] == (0, 2)
    assert least_bytes(spans) == 128 + 256 + 256
    assert unplanned_bytes(spans) == 768
    assert place_values(plan) == 128 + 256 + 256 + 64


def test_the_better_of_two_orders() -> None:
    """Largest first, the long-lived value would lie above the widest one, and `late` above it."""
    wide, wider, long, late = values(256, 320, 192, 192)
    plan = plan_of([long], [wider, long], [wide, long, late], [wide, long])
    spans = lifetimes(plan)
    assert [spans[v] for v in (wide, wider, long, late)] == [(2, 3), (1, 1), (0, 3), (2, 2)]
    assert place_values(plan) == least_bytes(spans) + 64 == 256 + 192 + 192 + 64
    assert long.offset == 0


def test_only_the_workspace_counts() -> None:
    (inside,) = values(192)
    outside = Value("x", dense_layout((9,), "uint8"), place="input")
    stored = Value("w", dense_layout((9,), "uint8"), place="parameters")
    plan = plan_of([outside, stored, inside])
    assert (least_bytes(lifetimes(plan)), unplanned_bytes(lifetimes(plan))) == (192, 192)
    assert place_values(plan) == 192 + 64


def test_nothing_to_place() -> None:
    plan = plan_of([])
    assert (least_bytes(lifetimes(plan)), unplanned_bytes(lifetimes(plan))) == (0, 0)
    assert place_values(plan) == 64


@pytest.mark.parametrize("seed", range(10))
def test_a_plan_lies_between_its_bounds(seed: int) -> None:
    random = np.random.default_rng(seed)
    some = values(*random.integers(65, 5000, 30))
    plan = plan_of(*([*random.choice(np.array(some), 3)] for _ in range(25)))
    spans = lifetimes(plan)
    # Counted step by step, the slow way.
    alive = [sum(v.nbytes for v, (a, b) in spans.items() if a <= i <= b) for i in range(25)]
    assert least_bytes(spans) == max(alive)
    # A value begins on a cache line, so each may leave a gap before it.
    assert max(alive) <= place_values(plan) <= unplanned_bytes(spans) + 64 * (len(spans) + 1)


def test_an_artifact_says_what_it_takes(builder: Any) -> None:
    b = builder(1)
    x = b.input(torch.uint8, (1, 16, 8, 8))
    for _ in range(4):
        x = b.conv(x, (16, 16, 1, 1), x_zero=3)
    artifact = build(b.finish(x), "x86-64-v3")
    memory, plan = artifact.memory, artifact.manifest
    assert isinstance(memory, Memory)
    assert memory.activations == plan["workspace_bytes"]
    assert memory.parameters == plan["parameter_bytes"]
    # The four layers' outputs and the image in the kernels' order are all of one size.
    one = memory.least // 2
    assert memory.least == 2 * one
    assert memory.unplanned == 5 * one
    assert memory.least <= memory.activations <= memory.least + 128
    assert json.loads(json.dumps(plan["memory"])) == plan["memory"]

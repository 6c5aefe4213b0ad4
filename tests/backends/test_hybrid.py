"""Dense layers by vpmaddubsw: classes of quads, and equality where the instruction saturates."""

from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import build, find_target
from planish.backends.lower.quads import LIMIT, classify
from planish.backends.stand_in import stand_in
from planish.backends.target import Target


def weights_of(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> Any:
    """Weights that fill one class of quads, or all of them."""
    if kind == "bell":
        return np.clip(random.normal(0, 30, shape).round(), -128, 127).astype(np.int8)
    if kind == "small":
        return random.integers(-31, 32, shape).astype(np.int8)
    if kind == "alternating":
        signs = np.indices(shape).sum(0) % 2 * 2 - 1
        return (127 * signs).astype(np.int8)
    if kind == "sparse":
        return np.where(random.random(shape) < 0.02, -128, 0).astype(np.int8)
    return np.full(shape, int(kind), np.int8)


KINDS = ("bell", "small", "alternating", "sparse", "64", "127", "-127", "-128", "0")


@pytest.mark.parametrize("kind", KINDS)
def test_classes_cover_every_weight_and_keep_to_the_limit(kind: str) -> None:
    weights = weights_of(kind, (3, 37, 8, 4), np.random.default_rng(1))
    quads = classify(weights)
    order = iter(quads.order.astype(int))
    for block, (pairs, single, wide) in zip(weights.astype(int), quads.counts, strict=True):
        narrow = [[next(order), next(order)] for _ in range(pairs)]
        narrow += [[next(order)] for _ in range(single)]
        for group in narrow:
            lanes = block[group].reshape(len(group), 8, 2, 2)
            for sign in (1, -1):
                assert np.maximum(sign * lanes, 0).sum((0, 3)).max() <= LIMIT
        seen = [number for group in narrow for number in group] + [next(order) for _ in range(wide)]
        assert len(set(seen)) == len(seen)
        assert not block[[i for i in range(37) if i not in seen]].any()
    assert next(order, None) is None


def test_what_can_be_paired_is() -> None:
    halves = np.full((1, 10, 8, 4), 32, np.int8)
    assert classify(halves).counts.tolist() == [[5, 0, 0]]
    halves[0, 3] = 64
    assert classify(halves).counts.tolist() == [[4, 2, 0]]
    halves[0, 3] = 65
    assert classify(halves).counts.tolist() == [[4, 1, 1]]


@pytest.mark.parametrize(
    "target", [find_target("x86-64-v3"), stand_in(find_target("x86-64-v4"))], ids=lambda t: t.name
)
def test_extreme_weights_and_inputs(builder: Any, target: Target) -> None:
    b, outputs = builder(2), []
    random = np.random.default_rng(3)
    for kind in KINDS:
        depth, out, size = b.integer(1, 40), b.integer(1, 40), b.integer(1, 3)
        x = b.input(torch.uint8, (1, depth, 6, 7))
        weight = torch.from_numpy(weights_of(kind, (out, depth, size, size), random))
        y = b.call(
            torch.ops.planish.conv2d_i8.default,
            *(x, b.stored(weight), None, b.stored(torch.full((out,), 2.0**-13))),
            *([b.integer(1, 2)] * 2, [1, 0, 1, 0], [1, 1], 1, b.integer(0, 255), 128),
            *(0, 255, torch.uint8),
        )
        outputs.append(y)
    graph = b.finish(*outputs)
    artifact = build(graph, target)
    kernels = [step["kernel"] for step in artifact.manifest["steps"]]
    assert sum(kernel.startswith("hybrid") for kernel in kernels) >= len(KINDS)
    for fill in (0, 255, None):
        inputs = [
            b.values(s.dtype, s.shape)
            if fill is None
            else torch.full([int(n or 1) for n in s.shape], fill, dtype=s.dtype)
            for s in graph.inputs
        ]
        for want, have in zip(graph(*inputs), artifact(*[x.numpy() for x in inputs]), strict=True):
            assert np.array_equal(want.numpy(), have)

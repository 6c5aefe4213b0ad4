"""Dense layers on ARM by smull and sadalp: equality at the edge of 16 bits, and where they stop."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import Reference, build, find_target
from planish.backends.stand_in import stand_in
from planish.ir import Graph

planish = torch.ops.planish
# Weights at which two products fill 16 bits, and mixtures of them.
KINDS = ("127", "-127", "alternating", "random")


def weights_of(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> Any:
    """Weights [out, in, kh, kw] without -128."""
    if kind == "alternating":
        return (127 * (np.indices(shape).sum(0) % 2 * 2 - 1)).astype(np.int8)
    if kind == "random":
        return random.integers(-127, 128, shape).astype(np.int8)
    return np.full(shape, int(kind), np.int8)


def layer(b: Any, weight: Any, x: Any = None) -> Any:
    """A convolution with these weights, one pixel of padding, and no bias."""
    out, depth, *_ = weight.shape
    x = b.input(torch.uint8, (1, depth, 5, 7)) if x is None else x
    return b.call(
        planish.conv2d_i8.default,
        *(x, b.stored(torch.from_numpy(weight)), None),
        *(b.stored(torch.full((out,), 2.0**-12)), [b.integer(1, 2)] * 2, [1] * 4, [1, 1], 1),
        *(b.integer(0, 255), 128, 0, 255, torch.uint8),
    )


def layers(builder: Callable[..., Any]) -> Graph:
    """Layers of every kind of weights, with runs that fill no step."""
    b, random = builder(4), np.random.default_rng(5)
    outputs = []
    for kind in KINDS * 2:
        shape = (b.integer(1, 21), b.integer(9, 40), *[b.integer(1, 3)] * 2)
        outputs.append(layer(b, weights_of(kind, shape, random)))
    return b.finish(*outputs)


def samples(graph: Graph, source: Any) -> list[list[Any]]:
    """Inputs of zeros, of 255, and random ones."""
    shapes = [tuple(int(n or 1) for n in spec.shape) for spec in graph.inputs]
    made = [[np.full(shape, fill, np.uint8) for shape in shapes] for fill in (0, 255)]
    return [*made, [source.values(torch.uint8, shape).numpy() for shape in shapes]]


def families(artifact: Any) -> list[str]:
    """What the layers' kernels are called, without their numbers."""
    kernels = [step["kernel"] for step in artifact.manifest["steps"]]
    return [k for k in kernels if k.startswith(("direct", "dot_product"))]


def test_extreme_weights_and_inputs(builder: Callable[..., Any]) -> None:
    graph = layers(builder)
    artifact = build(graph, stand_in(find_target("armv8")))
    assert sum("smull" in kernel for kernel in families(artifact)) >= len(KINDS)
    for given in samples(graph, builder(6)):
        for want, have in zip(Reference(graph)(*given), artifact(*given), strict=True):
            assert np.array_equal(want, have)


@pytest.mark.arm
def test_they_are_executed(emulated: Callable[[str], Any], builder: Callable[..., Any]) -> None:
    graph = layers(builder)
    given = samples(graph, builder(7))
    results = emulated("cortex-a72").run(build(graph, "armv8"), given)
    for inputs, found in zip(given, results, strict=True):
        for want, have in zip(Reference(graph)(*inputs), found, strict=True):
            assert np.array_equal(want, have)


def test_a_weight_of_minus_128_takes_the_wider_product(builder: Callable[..., Any]) -> None:
    b = builder(8)
    weight = np.ones((8, 32, 1, 1), np.int8)
    weight[3, 5] = -128
    (kernel,) = families(build(b.finish(layer(b, weight)), "armv8"))
    assert "smlal" in kernel


def test_short_runs_take_the_wider_product(builder: Callable[..., Any]) -> None:
    b = builder(9)
    (kernel,) = families(build(b.finish(layer(b, np.ones((8, 8, 1, 1), np.int8))), "armv8"))
    assert "smlal" in kernel


@pytest.mark.parametrize("target", ["armv8-dotprod", "x86-64-v3"])
def test_other_targets_have_better(builder: Callable[..., Any], target: str) -> None:
    b = builder(10)
    artifact = build(b.finish(layer(b, np.ones((8, 32, 1, 1), np.int8))), target)
    assert not any("smull" in kernel for kernel in families(artifact))

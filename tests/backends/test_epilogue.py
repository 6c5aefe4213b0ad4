"""How layers end: clamps, zero points, additions and half vectors, against the reference.

Some of these layers once sent LLVM into a loop without end: a test that hangs has failed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from planish.backends import build
from planish.ir import Graph, VerifyError
from planish.ir.verifier import verify

planish = torch.ops.planish
Builder = Any
TARGETS = ("x86-64-v3", "x86-64-v4", "x86-avx512vnni")
# Lowest and highest value, zero point.
ENDS = [(0, 255, 0), (0, 115, 0), (0, 255, 4), (5, 115, 4)]


def runnable(name: str) -> Any:
    """The target, or its stand-in where this processor lacks the instructions."""
    from planish.backends.cpu import cpu_flags
    from planish.backends.stand_in import stand_in
    from planish.backends.targets import find_target

    target = find_target(name)
    return target if set(target.cpu_flags) <= cpu_flags() else stand_in(target)


def layer(b: Builder, width: int, out: int, end: Sequence[int], multiplier: float) -> fx.Node:
    """A 1x1 layer of 8 channels."""
    x = b.input(torch.uint8, (1, 8, 1, width))
    weight = b.stored(b.values(torch.int8, (out, 8, 1, 1)))
    factors = b.stored(torch.full((out,), multiplier))
    lo, hi, zero_point = end
    shape = ([1, 1], [0] * 4, [1, 1], 1)
    numbers = (0, zero_point, lo, hi, torch.uint8)
    return b.call(planish.conv2d_i8.default, x, weight, None, factors, *shape, *numbers)


def check(graph: Graph, target: Any, values: Mapping[str, torch.Tensor]) -> None:
    inputs = list(values.values())
    got = build(graph, target, io="integer")(*[v.numpy() for v in inputs])
    for want, have in zip(graph(*inputs), got, strict=True):
        np.testing.assert_array_equal(have, want.numpy())


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("residual", [False, True])
def test_ends_and_half_vectors(builder: type[Builder], name: str, residual: bool) -> None:
    b = builder(4)
    outputs: list[fx.Node] = []
    for out, width, end in [
        *[(8, 14, end) for end in ENDS],
        *[(34, 8, end) for end in ENDS],
        *[(104, 14, end) for end in ENDS],
        *[(72, 3, end) for end in ENDS],
    ]:
        y = layer(b, width, out, end, 0.01)
        if residual:
            other = b.input(torch.uint8, (1, out, 1, width))
            numbers = (end[2], 3, -9000, 12000, 13, 7, end[0], end[1], torch.uint8)
            y = b.call(planish.add_i8.default, y, other, *numbers)
        outputs.append(y)
    graph = b.finish(*outputs)
    values = {spec.name: b.values(spec.dtype, spec.shape) for spec in graph.inputs}
    check(graph, runnable(name), values)


@pytest.mark.parametrize("multiplier", [0.999, 1.0, 1e9, 3e38])
def test_products_beyond_int32(builder: type[Builder], multiplier: float) -> None:
    """Narrowing alone would turn what is too large into the smallest value."""
    b = builder(5)
    graph = b.finish(*[layer(b, 5, 40, end, multiplier) for end in ENDS])
    values = {spec.name: b.values(spec.dtype, spec.shape) for spec in graph.inputs}
    check(graph, "x86-64-v3", values)


def added(b: Builder, shift: int) -> Graph:
    """A layer and an addition whose sum is multiplied by 2**-shift."""
    y = layer(b, 4, 8, (0, 255, 0), 0.5)
    other = b.input(torch.uint8, (1, 8, 1, 4))
    numbers = (0, 0, 32767, 32767, shift, 0, 0, 255, torch.uint8)
    return b.finish(b.call(planish.add_i8.default, y, other, *numbers))


@pytest.mark.parametrize("shift", [15, 0, -7, -8, -15, -100])
def test_sums_beyond_int32(builder: type[Builder], shift: int) -> None:
    b = builder(6)
    graph = added(b, shift)
    full = {
        spec.name: torch.full_like(b.values(spec.dtype, spec.shape), 255) for spec in graph.inputs
    }
    check(graph, "x86-64-v3", full)


def test_a_shift_that_float32_can_not_hold_is_refused(builder: type[Builder]) -> None:
    with pytest.raises(VerifyError, match="has the shift -200, beyond 100"):
        verify(added(builder(6), -200), after="a test")

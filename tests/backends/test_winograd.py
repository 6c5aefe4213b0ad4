"""Winograd's algorithm equals the reference, up to the largest sums that its proof allows."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from planish.backends import build
from planish.backends.choice import Choice
from planish.backends.choosing import choose
from planish.backends.lower.strategies import find_strategy
from planish.backends.lower.winograd import LIMIT
from planish.backends.packing_winograd import winograd_weights
from planish.ir import Graph

planish = torch.ops.planish
Builder = Any
TARGETS = ("x86-64-v3", "native")


class Always:
    """A database that has one form of Winograd's algorithm for every layer."""

    def __init__(self, form: int) -> None:
        self.form = form

    def find(self, workload: str) -> Choice | None:
        _, height, width, channels = json.loads(workload)["output"]
        tiles = -(-height // self.form) * -(-width // self.form)
        rows = min(tiles, 3)
        knobs = {"vectors": 1 + channels % 3, "rows": rows, "tiles": max(rows, tiles // 2)}
        return Choice("winograd", {"form": self.form, **knobs})


@pytest.fixture(autouse=True)
def every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a choice hold that fits but that the strategy would not offer."""

    def holds(choice: Choice, layer: Any, plan: Any) -> bool:
        return find_strategy(choice.strategy).fits(layer, plan)

    monkeypatch.setattr("planish.backends.choosing._holds", holds)


def add_layer(
    b: Builder,
    shape: Sequence[int],
    out: int,
    *,
    residual: bool = False,
    weight: torch.Tensor | None = None,
) -> fx.Node:
    """A 3x3 convolution with padding 1 of its own input, perhaps with an addition behind it."""
    x = b.input(torch.uint8, shape)
    y = b.conv(x, (out, shape[1], 3, 3), padding=(1, 1, 1, 1), x_zero=b.integer(0, 127))
    if weight is not None:
        setattr(b.root, str(y.args[1].target), weight)
    if not residual:
        return y
    other = b.input(torch.uint8, (shape[0], out, *shape[2:]))
    factors = (b.integer(-32767, 32767), b.integer(-32767, 32767), 16)
    points = (int(y.args[-4]), b.integer(0, 255))
    end = (b.integer(0, 255), 0, 255, torch.uint8)
    return b.call(planish.add_i8.default, y, other, *points, *factors, *end)


def check(graph: Graph, target: str, values: list[torch.Tensor], **options: Any) -> list[str]:
    """Compare with the reference; return the kernels."""
    artifact = build(graph, target, io="integer", **options)
    for want, have in zip(graph(*values), artifact(*[v.numpy() for v in values]), strict=True):
        np.testing.assert_array_equal(have, want.numpy())
    return [step["kernel"] for step in artifact.manifest["steps"]]


SHAPES = [
    ((1, 8, 4, 4), 8),
    ((1, 3, 5, 7), 40),
    ((2, 33, 6, 9), 17),
    ((1, 16, 13, 4), 72),
    ((1, 40, 11, 10), 24),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("form", [2, 4])
def test_equals_the_reference(
    builder: type[Builder], target: str, residual: bool, form: int
) -> None:
    b = builder(form)
    graph = b.finish(*[add_layer(b, shape, out, residual=residual) for shape, out in SHAPES])
    values = [b.values(spec.dtype, spec.shape) for spec in graph.inputs]
    kernels = check(graph, target, values, database=Always(form), threads=1 + form // 4)
    assert sum(kernel.startswith("winograd") for kernel in kernels) >= len(SHAPES)
    assert any(kernel.startswith("two_operands") for kernel in kernels) is False


@pytest.mark.parametrize("target", TARGETS)
def test_extremes_up_to_the_limit(builder: type[Builder], target: str) -> None:
    """The largest sums that still have a proof, and the next larger ones, which have none."""
    depth = LIMIT // (255 * 127 * 9)
    for channels, fits in ((depth, True), (depth + 1, False)):
        weight = torch.full((2, channels, 3, 3), 127, dtype=torch.int8)
        weight[1] = -127
        b = builder(channels)
        graph = b.finish(add_layer(b, (1, channels, 4, 4), 2, weight=weight))
        inputs = [torch.full((1, channels, 4, 4), 255, dtype=torch.uint8)]
        kernels = check(graph, target, inputs, database=Always(4))
        assert any(kernel.startswith("winograd") for kernel in kernels) is fits


def test_alternating_extremes(builder: type[Builder]) -> None:
    """The largest transformed weights and inputs, of either sign."""
    signs = torch.tensor([[1, -1, 1], [-1, 1, -1], [1, -1, 1]])
    weight = torch.stack([signs * 127, signs * -127, signs.abs() * 127, signs * -128 // 1])
    weight = weight.clamp(-128, 127)[:, None].repeat(1, 16, 1, 1).to(torch.int8)
    b = builder(0)
    graph = b.finish(add_layer(b, (1, 16, 8, 8), 4, weight=weight))
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 255
    values = [board.to(torch.uint8).expand(1, 16, 8, 8).contiguous()]
    check(graph, "native", values, database=Always(4))


def test_only_where_it_fits(builder: type[Builder], monkeypatch: pytest.MonkeyPatch) -> None:
    """Other strides, sizes, groups and real results are for other strategies."""
    monkeypatch.undo()
    seen: list[tuple[bool, tuple[int, int]]] = []

    def spy(layer: Any, plan: Any) -> Choice:
        seen.append((find_strategy("winograd").fits(layer, plan), layer.stride))
        return choose(layer, plan)

    monkeypatch.setattr("planish.backends.choosing.choose", spy)
    b = builder(3)
    x = b.input(torch.uint8, (1, 8, 9, 9))
    three = (16, 8, 3, 3)
    outputs = [
        b.conv(x, three, padding=(1, 1, 1, 1)),
        b.conv(x, three, padding=(1, 1, 1, 1), stride=(2, 2)),
        b.conv(x, three, padding=(2, 2, 2, 2), dilation=(2, 2)),
        b.conv(x, (16, 4, 3, 3), padding=(1, 1, 1, 1), groups=2),
        b.conv(x, (16, 8, 1, 1)),
    ]
    build(b.finish(*outputs), "x86-64-v3", io="integer")
    assert [fits for fits, _ in seen] == [True, False, False, False, False]


def test_packed_weights() -> None:
    """[block, pair, vector, tap, lane, 2]; what is missing is zero."""
    weight = np.arange(5 * 3 * 9, dtype=np.int8).reshape(5, 3, 3, 3)
    recipe: Mapping[str, Any] = {"weight": "w", "channels": [1, 4], "lanes": 2, "vectors": 1}
    packed = winograd_weights(dict(recipe), {"w": weight})
    assert packed.shape == (2, 2, 1, 9, 2, 2)
    assert packed[1, 0, 0, 4, 1, 1] == weight[4, 1, 1, 1]
    assert packed[0, 1, 0, 7, 0, 0] == weight[1, 2, 2, 1]
    assert not packed[:, 1, ..., 1].any()

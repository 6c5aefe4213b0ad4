"""Whole blocks of transformers, built from integer operators: their values, and no copies."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from planish.backends import build
from planish.backends.plan import Plan
from planish.ir import Graph

planish, aten = torch.ops.planish, torch.ops.aten
TARGETS = ("x86-64-v3", "native", "cuda-sm61", "cuda-sm80")
UINT8 = (0, 255, torch.uint8)
Builder = Any


def linear(b: Builder, x: fx.Node, inputs: int, outputs: int) -> fx.Node:
    weight = b.stored(b.values(torch.int8, (outputs, inputs)))
    scale = torch.rand(outputs, generator=b.random) / (60 * inputs**0.5)
    bias = b.stored(b.integers(-9999, 9999, (outputs,)).to(torch.int32))
    rest = (120, 128, *UINT8)
    return b.call(planish.linear_i8.default, x, weight, bias, b.stored(scale), *rest)


def norm(b: Builder, x: fx.Node, width: int) -> fx.Node:
    gain = b.stored(torch.randn(width, generator=b.random) * 9000)
    offset = b.stored(b.integers(-9999, 9999, (width,)).to(torch.int32))
    return b.call(planish.layer_norm_i8.default, x, gain, offset, 1, 12345, 120, 128, *UINT8)


def table(b: Builder, x: fx.Node) -> fx.Node:
    return b.call(planish.table_i8.default, x, b.stored(b.values(torch.uint8, (256,))))


def add(b: Builder, a: fx.Node, c: fx.Node) -> fx.Node:
    return b.call(planish.add_i8.default, a, c, 128, 120, 9000, 11000, 14, 120, *UINT8)


def softmax(b: Builder, x: fx.Node) -> fx.Node:
    exponentials = torch.exp(-0.03 * torch.arange(256, dtype=torch.float64)) * 2**20
    stored = b.stored(exponentials.round().to(torch.int32))
    return b.call(planish.softmax_i8.default, x, stored, -1, 2000.0, 0, *UINT8)


def attention(b: Builder, x: fx.Node, shape: Sequence[int], heads: int) -> fx.Node:
    images, tokens, width = shape
    each = [images, tokens, 3, heads, width // heads]
    wide = b.call(aten.reshape.default, linear(b, x, width, 3 * width), each)
    parts = b.call(aten.permute.default, wide, [2, 0, 3, 1, 4])
    q, k, v = (b.call(aten.select.int, parts, 0, i) for i in range(3))
    across = b.call(aten.permute.default, k, [0, 1, 3, 2])
    scores = b.call(planish.matmul_i8.default, q, across, 1e-3, 128, 128, 128, *UINT8)
    mixed = b.call(planish.matmul_i8.default, softmax(b, scores), v, 3e-3, 0, 128, 128, *UINT8)
    together = b.call(aten.permute.default, mixed, [0, 2, 1, 3])
    return linear(b, b.call(aten.reshape.default, together, list(shape)), width, width)


def vit_block(b: Builder, batch: int) -> fx.Node:
    shape = (batch, 21, 96)
    x = b.input(torch.uint8, shape)
    x = add(b, x, b.stored(b.values(torch.int8, (1, 21, 96))))
    x = add(b, attention(b, norm(b, x, 96), shape, 3), x)
    hidden = table(b, linear(b, norm(b, x, 96), 96, 192))
    x = add(b, linear(b, hidden, 192, 96), x)
    return b.call(aten.select.int, x, 1, 0)


def convnext_block(b: Builder, batch: int) -> fx.Node:
    image = b.input(torch.uint8, (batch, 24, 9, 7))
    x = b.conv(image, (24, 1, 7, 7), padding=(3, 3, 3, 3), groups=24, x_zero=128)
    x = norm(b, b.call(aten.permute.default, x, [0, 2, 3, 1]), 24)
    x = linear(b, table(b, linear(b, x, 24, 48)), 48, 24)
    scale = b.stored(b.values(torch.int8, (24,)))
    x = b.call(planish.mul_i8.default, x, scale, 0.02, 128, 3, 128, *UINT8)
    x = add(b, image, b.call(aten.permute.default, x, [0, 3, 1, 2]))
    return b.conv(x, (8, 24, 3, 3), padding=(1, 1, 1, 1), x_zero=120)


def window_block(b: Builder, batch: int) -> fx.Node:
    """Attention in windows of a picture [images, height, width, channels], moved round."""
    x = b.input(torch.uint8, (batch, 8, 8, 32))
    first = b.call(aten.slice.Tensor, x, 1, 2, 8)
    moved = b.call(aten.cat.default, [first, b.call(aten.slice.Tensor, x, 1, 0, 2)], 1)
    split = b.call(aten.view.default, norm(b, moved, 32), [batch, 2, 4, 2, 4, 32])
    windows = b.call(aten.permute.default, split, [0, 1, 3, 2, 4, 5])
    rows = b.call(aten.reshape.default, windows, [batch * 4, 16, 32])
    mixed = attention(b, rows, (batch * 4, 16, 32), 2)
    back = b.call(aten.view.default, mixed, [batch, 2, 2, 4, 4, 32])
    back = b.call(aten.permute.default, back, [0, 1, 3, 2, 4, 5])
    y = add(b, x, b.call(aten.reshape.default, back, [batch, 8, 8, 32]))
    return b.call(planish.mean_i8.default, y, [1, 2], False, 0.02, 120, 120, *UINT8)


def squeeze_excite(b: Builder, batch: int) -> fx.Node:
    x = b.conv(b.input(torch.uint8, (batch, 3, 9, 9)), (20, 3, 3, 3), x_zero=7)
    pooled = b.call(planish.mean_i8.default, x, [2, 3], True, 0.02, 120, 120, *UINT8)
    gate = table(b, b.conv(pooled, (20, 20, 1, 1), x_zero=120))
    return b.call(planish.mul_i8.default, x, gate, 0.006, 128, 3, 128, *UINT8)


BLOCKS: dict[str, Callable[[Builder, int], fx.Node]] = {
    "vit": vit_block,
    "convnext": convnext_block,
    "windows": window_block,
    "squeeze-excite": squeeze_excite,
}


def make(builder: Builder, name: str, batch: int) -> tuple[Graph, torch.Tensor]:
    b = builder(7)
    graph = b.finish(BLOCKS[name](b, batch))
    return graph, b.values(torch.uint8, graph.inputs[0].shape)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", BLOCKS)
def test_block_equals_reference(builder: Builder, name: str, target: str) -> None:
    graph, x = make(builder, name, batch=2)
    assert np.array_equal(graph(x)[0].numpy(), builder.compile(graph, target)(x.numpy())[0])


@pytest.mark.parametrize("name", ["vit", "windows"])
def test_threads_share_a_block(
    builder: Builder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "parallel", lambda plan, work, least: work > 1)
    graph, x = make(builder, name, batch=1)
    artifact = build(graph, "native", threads=2)
    assert any("parallel" in step["kernel"] for step in artifact.manifest["steps"])
    assert np.array_equal(graph(x)[0].numpy(), artifact(x.numpy())[0])


def test_attention_and_channel_order_cost_no_copies(builder: Builder) -> None:
    for name, expected in (("vit", 0), ("convnext", 0)):
        artifact = build(make(builder, name, batch=1)[0], "x86-64-v3")
        kernels = [step["kernel"] for step in artifact.manifest["steps"]]
        copies = [kernel for kernel in kernels if kernel.startswith(("map_copy", "gather"))]
        assert len(copies) == expected, (name, kernels)

"""Movements are views: each kind of kernel reads what a chain of them shows, value for value."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from planish.backends import build

planish, aten = torch.ops.planish, torch.ops.aten
UINT8 = (0, 255, torch.uint8)
Builder = Any
Shape = tuple[int, ...]


def permute(b: Builder, x: fx.Node, shape: Shape) -> tuple[fx.Node, Shape]:
    order = torch.randperm(len(shape), generator=b.random).tolist()
    return b.call(aten.permute.default, x, order), tuple(shape[axis] for axis in order)


def cut(b: Builder, x: fx.Node, shape: Shape) -> tuple[fx.Node, Shape]:
    axis, step = b.integer(0, len(shape) - 1), b.integer(1, 2)
    start = b.integer(0, shape[axis] - 1)
    size = len(range(start, shape[axis], step))
    cut_ = b.call(aten.slice.Tensor, x, axis, start, shape[axis], step)
    return cut_, (*shape[:axis], size, *shape[axis + 1 :])


def select(b: Builder, x: fx.Node, shape: Shape) -> tuple[fx.Node, Shape]:
    axis = b.integer(0, len(shape) - 1)
    taken = b.call(aten.select.int, x, axis, b.integer(0, shape[axis] - 1))
    return taken, (*shape[:axis], *shape[axis + 1 :])


def unsqueeze(b: Builder, x: fx.Node, shape: Shape) -> tuple[fx.Node, Shape]:
    axis = b.integer(0, len(shape))
    return b.call(aten.unsqueeze.default, x, axis), (*shape[:axis], 1, *shape[axis:])


def merge(b: Builder, x: fx.Node, shape: Shape) -> tuple[fx.Node, Shape]:
    axis = b.integer(0, len(shape) - 2)
    merged = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    return b.call(aten.reshape.default, x, list(merged)), merged


MOVES = (permute, cut, select, unsqueeze, merge)


def image_readers(b: Builder, x: fx.Node, shape: Shape) -> list[fx.Node]:
    channels = shape[1]
    around = b.conv(x, (channels, 1, 3, 3), padding=(1, 1, 1, 1), groups=channels, x_zero=9)
    other = b.conv(x, (channels, channels, 1, 1), x_zero=9)
    added = b.call(planish.add_i8.default, other, x, 5, 6, 900, -700, 10, 128, *UINT8)
    pooled = b.call(planish.max_pool2d_i8.default, x, [1, 1], [1, 1], [0, 0, 0, 0], [1, 1], False)
    return [around, added, pooled]


def row_readers(b: Builder, x: fx.Node, shape: Shape) -> list[fx.Node]:
    width = shape[-1]
    scale = torch.rand(7, generator=b.random) / (60 * width**0.5)
    weight = b.stored(b.values(torch.int8, (7, width)))
    rest = (b.stored(torch.ones(width) * 5000), b.stored(torch.zeros(width, dtype=torch.int32)))
    exponentials = torch.exp(-0.03 * torch.arange(256, dtype=torch.float64)) * 2**20
    stored = b.stored(exponentials.round().to(torch.int32))
    across = b.call(aten.transpose.int, x, -1, -2)
    return [
        b.call(planish.linear_i8.default, x, weight, None, b.stored(scale), 9, 128, *UINT8),
        b.call(planish.layer_norm_i8.default, x, *rest, 1, 99, 9, 128, *UINT8),
        b.call(planish.softmax_i8.default, x, stored, -1, 900.0, 0, *UINT8),
        b.call(planish.matmul_i8.default, x, across, 1e-4, 9, 9, 128, *UINT8),
        b.call(planish.mean_i8.default, x, [-1], True, 0.1, 9, 128, *UINT8),
    ]


def any_readers(b: Builder, x: fx.Node, shape: Shape) -> list[fx.Node]:
    numbers = b.stored(b.values(torch.uint8, (256,)))
    return [
        x,
        b.call(planish.table_i8.default, x, numbers),
        b.call(planish.mul_i8.default, x, x, 0.01, 9, 9, 128, *UINT8),
        b.call(planish.dequantize.default, x, 0.5, 9),
        b.call(aten.cat.default, [x, x], len(shape) - 1),
    ]


READERS: tuple[Callable[[Builder, fx.Node, Shape], list[fx.Node]], ...]
READERS = (image_readers, row_readers, any_readers)


def check(builder: Builder, seed: int, target: str, chains: int) -> None:
    b = builder(seed)
    outputs: list[fx.Node] = []
    for _ in range(chains):
        shape: Shape = tuple(b.integer(2, 7) for _ in range(b.integer(3, 5)))
        x = b.input(torch.uint8, shape)
        if b.integer(0, 1):  # now and then from a layer's result, in the integer region
            weight = b.stored(b.values(torch.int8, (11, shape[-1])))
            scale = b.stored(torch.rand(11, generator=b.random) * 0.01)
            x = b.call(planish.linear_i8.default, x, weight, None, scale, 9, 128, *UINT8)
            shape = (*shape[:-1], 11)
        for _ in range(b.integer(1, 3)):
            move = MOVES[b.integer(0, len(MOVES) - 1)]
            if len(shape) > 2:
                x, shape = move(b, x, shape)
        readers = READERS[b.integer(0 if len(shape) == 4 else 1, 2)]
        outputs += readers(b, x, shape)
    graph = b.finish(*outputs)
    inputs = [b.values(torch.uint8, spec.shape) for spec in graph.inputs]
    got = build(graph, target)(*[x.numpy() for x in inputs])
    for want, have, node in zip(graph(*inputs), got, graph.outputs, strict=True):
        assert np.array_equal(want.numpy(), have), node.format_node()


@pytest.mark.parametrize("target", ["x86-64-v3", "native"])
def test_every_kernel_reads_views(builder: Builder, target: str) -> None:
    check(builder, 1, target, chains=6)


@pytest.mark.sweep
@pytest.mark.parametrize("target", ["x86-64-v3", "native"])
@pytest.mark.parametrize("seed", range(2, 10))
def test_views_sweep(builder: Builder, seed: int, target: str) -> None:
    check(builder, seed, target, chains=20)

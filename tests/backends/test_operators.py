"""Each integer operator on each target equals the reference, value for value.

One graph holds many independent operators of random shapes, so that one compilation tests them all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from planish.ir import Graph

planish, aten = torch.ops.planish, torch.ops.aten
PROCESSORS = ("x86-64-v3", "native")
GPUS = ("cuda-sm61", "cuda-sm75", "cuda-sm80", "cuda-sm90")
# GPUs run emulated, all alike but for the dense kernels, which test_cuda_kernels.py looks at.
TARGETS = (*PROCESSORS, "cuda-sm80")
BYTES = (torch.uint8, torch.int8)
Builder = Any
Case = Callable[[Builder], Sequence[fx.Node]]


def assert_equal(graph: Graph, target: str, seed: int, builder: Builder, **options: Any) -> None:
    """Compile, run on random values with extremes, and compare with the reference."""
    source = builder(seed + 1000)
    inputs = [
        source.values(spec.dtype, spec.shape)
        if spec.dtype in BYTES
        else 3 * torch.randn([s or 1 for s in spec.shape], generator=source.random)
        for spec in graph.inputs
    ]
    expected = graph(*inputs)
    got = builder.compile(graph, target, **options)(*[tensor.numpy() for tensor in inputs])
    for number, (want, have, node) in enumerate(zip(expected, got, graph.outputs, strict=True)):
        assert have.dtype == want.numpy().dtype
        wrong = int((want.numpy() != have).sum())
        assert wrong == 0, f"output {number} of {len(got)}: {wrong} differ: {node.format_node()}"


def dtype(b: Builder) -> torch.dtype:
    return BYTES[b.integer(0, 1)]


def zero_point(b: Builder, of: torch.dtype) -> int:
    info = torch.iinfo(of)
    return [info.min, info.max, b.integer(info.min, info.max)][b.integer(0, 2)]


def convolution(b: Builder) -> list[fx.Node]:
    groups = [1, 1, 1, 2, 3][b.integer(0, 4)]
    depth, out = b.integer(1, 20), b.integer(1, 40)
    kernel = [b.integer(1, 4), b.integer(1, 4)]
    dilation = [b.integer(1, 2), b.integer(1, 2)]
    padding = [b.integer(0, 3) for _ in range(4)]
    size = [
        max(dilation[i] * (kernel[i] - 1) + 1 - padding[i] - padding[2 + i], 1) + b.integer(0, 7)
        for i in (0, 1)
    ]
    kind = dtype(b)
    x = b.input(kind, (b.integer(1, 3), depth * groups, *size))
    return [
        b.conv(
            x,
            (out * groups, depth, *kernel),
            stride=(b.integer(1, 3), b.integer(1, 3)),
            padding=padding,
            dilation=dilation,
            groups=groups,
            x_zero=zero_point(b, kind),
            dtype=dtype(b),
            bias=bool(b.integer(0, 1)),
            spread=[0.2, 1.0, 1000.0][b.integer(0, 2)],
        )
    ]


def depthwise(b: Builder) -> list[fx.Node]:
    channels, kind = b.integer(2, 40), dtype(b)
    kernel = [b.integer(1, 5), b.integer(1, 5)]
    x = b.input(kind, (b.integer(1, 2), channels, b.integer(5, 9), b.integer(5, 9)))
    return [
        b.conv(
            x,
            (channels * [1, 1, 1, 2][b.integer(0, 3)], 1, *kernel),
            stride=(b.integer(1, 2), b.integer(1, 2)),
            padding=[b.integer(0, 2) for _ in range(4)],
            groups=channels,
            x_zero=zero_point(b, kind),
            dtype=dtype(b),
        )
    ]


def linear(b: Builder) -> list[fx.Node]:
    features, out, kind, to = b.integer(1, 90), b.integer(1, 40), dtype(b), dtype(b)
    rows = [b.integer(1, 5) for _ in range(b.integer(1, 3))]
    zero, lo, hi = b.bounds(to)
    x = b.input(kind, (*rows, features))
    scale = torch.rand(out, generator=b.random) / (60 * features**0.5)
    bias = b.stored(b.integers(-(2**31), 2**31 - 1, (out,)).to(torch.int32))
    weight = b.stored(b.values(torch.int8, (out, features)))
    y = b.call(
        planish.linear_i8.default,
        *(x, weight, bias if b.integer(0, 1) else None, b.stored(scale)),
        *(zero_point(b, kind), zero, lo, hi, to),
    )
    return [y]


def addition(b: Builder) -> list[fx.Node]:
    kinds, to = (dtype(b), dtype(b)), dtype(b)
    shape = [b.integer(1, 9) for _ in range(b.integer(1, 5))]
    other = [size if b.integer(0, 2) else 1 for size in shape][b.integer(0, len(shape) - 1) :]
    shapes = [shape, other if b.integer(0, 1) else shape]
    zero, lo, hi = b.bounds(to)
    a, c = (b.input(kind, s) for kind, s in zip(kinds, shapes, strict=True))
    factors = [b.integer(-32767, 32767) for _ in range(2)]
    zeros = [zero_point(b, kind) for kind in kinds]
    shift = b.integer(8, 18)
    return [b.call(planish.add_i8.default, a, c, *zeros, *factors, shift, zero, lo, hi, to)]


def shape_of_image(b: Builder) -> tuple[int, ...]:
    return b.integer(1, 2), b.integer(1, 37), b.integer(1, 9), b.integer(1, 9)


def pointwise(b: Builder) -> list[fx.Node]:
    kind, to = dtype(b), dtype(b)
    zero, lo, hi = b.bounds(to)
    x = b.input(kind, shape_of_image(b) if b.integer(0, 1) else (b.integer(1, 40),))
    info = torch.iinfo(kind)
    low, high = sorted((b.integer(info.min, info.max), b.integer(info.min, info.max)))
    scale = float(torch.rand((), generator=b.random)) * 2
    changed = b.call(planish.requantize_i8.default, x, scale, zero_point(b, kind), zero, lo, hi, to)
    looked_up = b.call(planish.table_i8.default, x, b.stored(b.values(to, (256,))))
    return [changed, looked_up, b.call(planish.clamp_i8.default, x, low, high)]


def pools(b: Builder) -> list[fx.Node]:
    kind, to = dtype(b), dtype(b)
    kernel = [b.integer(1, 4), b.integer(1, 4)]
    padding = [b.integer(0, kernel[i % 2] // 2) for i in range(4)]
    stride, ceil = [b.integer(1, 3), b.integer(1, 3)], bool(b.integer(0, 1))
    images, channels = b.integer(1, 2), b.integer(1, 37)
    x = b.input(kind, (images, channels, b.integer(4, 11), b.integer(4, 11)))
    largest = b.call(planish.max_pool2d_i8.default, x, kernel, stride, padding, [1, 1], ceil)
    zero, lo, hi = b.bounds(to)
    out = planish.max_pool2d_i8(
        torch.zeros(b.specs[-1].shape), kernel, stride, padding, [1, 1], ceil
    ).shape[2:]
    spread = torch.rand(out, generator=b.random) * 0.3
    mean = b.call(
        planish.avg_pool2d_i8.default,
        *(x, b.stored(spread), kernel, stride, padding, ceil),
        *(zero_point(b, kind), zero, lo, hi, to),
    )
    size = [b.integer(1, 5), b.integer(1, 5)]
    adaptive = b.call(
        planish.adaptive_avg_pool2d_i8.default,
        *(x, b.stored(torch.rand(size, generator=b.random) * 0.2), size),
        *(zero_point(b, kind), zero, lo, hi, to),
    )
    return [largest, mean, adaptive]


def movements(b: Builder) -> list[fx.Node]:
    kind = dtype(b)
    n, c, h, w = shape = (b.integer(1, 2), b.integer(2, 19), b.integer(2, 6), b.integer(2, 6))
    x, other = b.input(kind, shape), b.input(kind, (n, b.integer(1, 9), h, w))
    order = torch.randperm(4, generator=b.random).tolist()
    start, step = b.integer(0, 1), b.integer(1, 2)
    return [
        b.call(aten.cat.default, [x, other, x], 1),
        b.call(aten.cat.default, [x, x], 2),
        b.call(aten.flatten.using_ints, x, 1),
        b.call(aten.view.default, x, [n, h, c, w]),
        b.call(aten.view.default, x, [n, c * h, w]),
        b.call(aten.permute.default, x, order),
        b.call(aten.slice.Tensor, x, 1, start, c, step),
        b.call(aten.slice.Tensor, x, 3, start, w, 1),
        b.call(aten.unsqueeze.default, x, 1),
    ]


def boundaries(b: Builder) -> list[fx.Node]:
    kind = dtype(b)
    zero, lo, hi = b.bounds(kind)
    shape = shape_of_image(b) if b.integer(0, 1) else [b.integer(1, 9) for _ in range(3)]
    x = b.input(torch.float32, shape)
    scale = float(torch.rand((), generator=b.random)) * 0.1 + 1e-3
    quantized = b.call(planish.quantize.default, x, scale, zero, lo, hi, kind)
    return [quantized, b.call(planish.dequantize.default, quantized, scale, zero)]


CASES: dict[str, tuple[Case, int]] = {
    "convolution": (convolution, 14),
    "depthwise": (depthwise, 8),
    "linear": (linear, 8),
    "addition": (addition, 12),
    "pointwise": (pointwise, 4),
    "pools": (pools, 4),
    "movements": (movements, 2),
    "boundaries": (boundaries, 6),
}


def make_graph(builder: Builder, name: str, seed: int) -> Graph:
    case, count = CASES[name]
    b = builder(seed)
    return b.finish(*[output for _ in range(count) for output in case(b)])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_operator_equals_reference(builder: Builder, name: str, target: str) -> None:
    assert_equal(make_graph(builder, name, seed=1), target, 1, builder)


@pytest.mark.slow
@pytest.mark.parametrize("target", PROCESSORS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(2, 10))
def test_operator_sweep(builder: Builder, name: str, target: str, seed: int) -> None:
    assert_equal(make_graph(builder, name, seed), target, seed, builder, threads=1 + seed % 2)


@pytest.mark.sweep
@pytest.mark.parametrize("target", GPUS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(2, 6))
def test_operator_sweep_on_gpus(builder: Builder, name: str, target: str, seed: int) -> None:
    assert_equal(make_graph(builder, name, seed), target, seed, builder)


@pytest.mark.parametrize("target", TARGETS)
def test_accumulators_wrap_as_the_reference_does(builder: Builder, target: str) -> None:
    b = builder(3)
    x = b.input(torch.uint8, (1, 8))
    bias = b.stored(torch.full((4,), 2**31 - 1, dtype=torch.int32))
    weight = b.stored(torch.full((4, 8), 127, dtype=torch.int8))
    scale = b.stored(torch.full((4,), 1e-7))
    y = b.call(planish.linear_i8.default, x, weight, bias, scale, 0, 128, 0, 255, torch.uint8)
    assert_equal(b.finish(y), target, 0, builder)


@pytest.mark.parametrize("target", TARGETS)
def test_quantize_of_special_values(builder: Builder, target: str) -> None:
    b = builder(4)
    x = b.input(torch.float32, (1, 3, 2, 3))
    graph = b.finish(b.call(planish.quantize.default, x, 0.5, 7, 3, 250, torch.uint8))
    special = [np.nan, np.inf, -np.inf, 0.25, 0.75, -0.0, 1e38, -1e38, 1e-45]
    values = np.array([*special, 1.25, 1.75, 2.25, -0.25, -0.75, 100, 121.5, 121.75, -2], "f4")
    values = values.reshape(1, 3, 2, 3)
    expected = graph(torch.from_numpy(values))[0].numpy()
    assert np.array_equal(builder.compile(graph, target)(values)[0], expected)

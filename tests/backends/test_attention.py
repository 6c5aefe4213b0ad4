"""Each operator of transformers on each target equals the reference, value for value.

One graph holds many independent operators of random shapes, so that one compilation tests them all.
"""

from collections.abc import Callable, Sequence
from typing import Any

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
    inputs = [source.values(spec.dtype, spec.shape) for spec in graph.inputs]
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


def some_shape(b: Builder, axes: int, largest: int = 9) -> list[int]:
    return [b.integer(1, largest) for _ in range(axes)]


def narrower(b: Builder, shape: Sequence[int]) -> list[int]:
    """A shape that broadcasts to another one."""
    cut = b.integer(0, len(shape)) if b.integer(0, 2) == 0 else 0
    return [size if b.integer(0, 2) else 1 for size in shape[cut:]]


def operand(b: Builder, kind: torch.dtype, shape: Sequence[int]) -> fx.Node:
    """An activation, or now and then a stored tensor."""
    return b.input(kind, shape) if b.integer(0, 3) else b.stored(b.values(kind, shape))


def product(b: Builder) -> list[fx.Node]:
    kinds, to = (dtype(b), dtype(b)), dtype(b)
    shape = some_shape(b, b.integer(1, 5))
    shapes = [shape, narrower(b, shape)]
    if b.integer(0, 1):
        shapes.reverse()
    a, c = b.input(kinds[0], shapes[0]), operand(b, kinds[1], shapes[1])
    multiplier = float(torch.rand((), generator=b.random)) * [0.02, 1e-4][b.integer(0, 1)]
    zeros = [zero_point(b, kind) for kind in kinds]
    zero, lo, hi = b.bounds(to)
    return [b.call(planish.mul_i8.default, a, c, multiplier, *zeros, zero, lo, hi, to)]


def difference(b: Builder) -> list[fx.Node]:
    kinds, to = (dtype(b), dtype(b)), dtype(b)
    shape = some_shape(b, 4)
    a, c = b.input(kinds[0], shape), operand(b, kinds[1], narrower(b, shape))
    zeros, factor = [zero_point(b, kind) for kind in kinds], b.integer(1, 32767)
    zero, lo, hi = b.bounds(to)
    rest = (*zeros, factor, -b.integer(1, 32767), b.integer(8, 16), zero, lo, hi, to)
    return [b.call(planish.add_i8.default, a, c, *rest)]


def matrices(b: Builder) -> list[fx.Node]:
    kinds, to = (dtype(b), dtype(b)), dtype(b)
    rows, depth, columns = b.integer(1, 21), b.integer(1, 40), b.integer(1, 40)
    batch = some_shape(b, b.integer(0, 3), 4)
    batches = [narrower(b, batch), narrower(b, batch)]
    a_shape, b_shape = [*batches[0], rows, depth], [*batches[1], depth, columns]
    across = b.integer(0, 1)
    a = operand(b, kinds[0], a_shape)
    c = operand(b, kinds[1], [*batches[1], columns, depth] if across else b_shape)
    if across:
        c = b.call(aten.transpose.int, c, -1, -2)
    multiplier = [1e-2, 1e-3, 1e-5][b.integer(0, 2)] * (0.1 + b.integer(0, 9))
    zeros = [zero_point(b, kind) for kind in kinds]
    zero, lo, hi = b.bounds(to)
    real = b.call(planish.matmul_dq.default, a, c, multiplier, *zeros)
    return [b.call(planish.matmul_i8.default, a, c, multiplier, *zeros, zero, lo, hi, to), real]


def softmaxes(b: Builder) -> list[fx.Node]:
    kind, to = dtype(b), dtype(b)
    shape = some_shape(b, b.integer(1, 5), 12)
    x = operand(b, kind, shape)
    scale, bits = [1.0, 0.1, 1e-3][b.integer(0, 2)], [8, 23][b.integer(0, 1)]
    table = torch.exp(-scale * torch.arange(256, dtype=torch.float64)) * 2.0**bits
    zero, lo, hi = b.bounds(to)
    dim = b.integer(-len(shape), len(shape) - 1)
    multiplier = [255.0, 4096.0, 3.7][b.integer(0, 2)]
    stored = b.stored(table.round().to(torch.int32))
    return [b.call(planish.softmax_i8.default, x, stored, dim, multiplier, zero, lo, hi, to)]


def layer_norms(b: Builder) -> list[fx.Node]:
    kind, to = dtype(b), dtype(b)
    shape = some_shape(b, b.integer(1, 4), 20)
    axes = b.integer(1, len(shape))
    own = shape[len(shape) - axes :]
    x = operand(b, kind, shape)
    if len(shape) > 1 and axes == 1 and b.integer(0, 1):
        x = b.call(aten.transpose.int, b.input(kind, [*shape[:-2], shape[-1], shape[-2]]), -1, -2)
    spread = [5000.0, 1e9][b.integer(0, 9) == 0]
    gain = (torch.randn(own, generator=b.random) * spread).to(torch.float32)
    offset = b.integers(-(2**14), 2**14, own).to(torch.int32)
    epsilon = [0, 1, b.integer(0, 10**6), 2**40 + 12345][b.integer(0, 3)]
    zero, lo, hi = b.bounds(to)
    rest = (axes, epsilon, zero_point(b, kind), zero, lo, hi, to)
    return [b.call(planish.layer_norm_i8.default, x, b.stored(gain), b.stored(offset), *rest)]


def means(b: Builder) -> list[fx.Node]:
    kind, to = dtype(b), dtype(b)
    shape = some_shape(b, b.integer(1, 5), 12)
    axes = torch.randperm(len(shape), generator=b.random)[: b.integer(1, len(shape))].tolist()
    x = operand(b, kind, shape)
    multiplier = [0.02, 0.3, 1e-4][b.integer(0, 2)]
    zero, lo, hi = b.bounds(to)
    rest = (multiplier, zero_point(b, kind), zero, lo, hi, to)
    return [b.call(planish.mean_i8.default, x, axes, bool(b.integer(0, 1)), *rest)]


@pytest.mark.parametrize("target", TARGETS)
def test_products_wrap_as_the_reference_does(builder: Builder, target: str) -> None:
    b = builder(5)
    a = b.stored(torch.full((3, 40001), 255, dtype=torch.uint8))
    c = b.stored(torch.full((40001, 2), 255, dtype=torch.uint8))
    x = b.input(torch.uint8, (40001, 2))
    zeros = [(0, 0), (0, 255), (255, 0), (9, 100)]
    graph = b.finish(
        *[b.call(planish.matmul_dq.default, a, y, 1.0, *zero) for zero in zeros for y in (c, x)]
    )
    assert_equal(graph, target, 0, builder)


CASES: dict[str, tuple[Case, int]] = {
    "product": (product, 16),
    "difference": (difference, 6),
    "matrices": (matrices, 16),
    "softmaxes": (softmaxes, 12),
    "layer norms": (layer_norms, 12),
    "means": (means, 14),
}


def make_graph(builder: Builder, name: str, seed: int) -> Graph:
    case, count = CASES[name]
    b = builder(seed)
    return b.finish(*[output for _ in range(count) for output in case(b)])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_operator_equals_reference(builder: Builder, name: str, target: str) -> None:
    assert_equal(make_graph(builder, name, seed=1), target, 1, builder, threads=2)


@pytest.mark.sweep
@pytest.mark.parametrize("target", [*PROCESSORS, *GPUS])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(2, 10))
def test_operator_sweep(builder: Builder, name: str, target: str, seed: int) -> None:
    assert_equal(make_graph(builder, name, seed), target, seed, builder, threads=1 + seed % 2)

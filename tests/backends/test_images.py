"""Operators that make images larger, end in real numbers or read by index: equal to the reference.

One graph holds many independent operators of random shapes, so that one compilation tests them all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from planish.backends import build
from planish.backends.phases import phases
from planish.ir import Graph

planish, aten = torch.ops.planish, torch.ops.aten
PROCESSORS = ("x86-64-v3", "native")
GPUS = ("cuda-sm61", "cuda-sm75", "cuda-sm80", "cuda-sm90")
# GPUs run emulated, all alike but for the dense kernels, which test_cuda_kernels.py looks at.
TARGETS = (*PROCESSORS, "cuda-sm80")
BYTES = (torch.uint8, torch.int8)
INDICES = (torch.int64, torch.int32)
Builder = Any
Case = Callable[[Builder], Sequence[fx.Node]]


def inputs_of(graph: Graph, source: Builder) -> list[torch.Tensor]:
    """Random bytes with extremes; indices of at least the four rows that every table has."""
    return [
        source.integers(0, 3, spec.shape).to(spec.dtype)
        if spec.dtype in INDICES
        else source.values(spec.dtype, spec.shape)
        for spec in graph.inputs
    ]


def assert_equal(graph: Graph, target: str, seed: int, builder: Builder, **options: Any) -> None:
    """Compile, run on random values with extremes, and compare with the reference."""
    inputs = inputs_of(graph, builder(seed + 1000))
    expected = graph(*inputs)
    got = builder.compile(graph, target, **options)(*[tensor.numpy() for tensor in inputs])
    for number, (want, have, node) in enumerate(zip(expected, got, graph.outputs, strict=True)):
        assert have.dtype == want.numpy().dtype
        assert have.shape == tuple(want.shape)
        wrong = int((want.numpy() != have).sum())
        assert wrong == 0, f"output {number} of {len(got)}: {wrong} differ: {node.format_node()}"


def dtype(b: Builder) -> torch.dtype:
    return BYTES[b.integer(0, 1)]


def zero_point(b: Builder, of: torch.dtype) -> int:
    info = torch.iinfo(of)
    return [info.min, info.max, b.integer(info.min, info.max)][b.integer(0, 2)]


def image(b: Builder, kind: torch.dtype) -> fx.Node:
    return b.input(kind, (b.integer(1, 2), b.integer(1, 37), b.integer(2, 9), b.integer(2, 9)))


def scales(b: Builder, count: int, terms: int) -> fx.Node:
    return b.stored(torch.rand(count, generator=b.random) / (60 * terms**0.5))


def biases(b: Builder, count: int) -> fx.Node | None:
    found = b.integers(-20000, 20000, (count,)).to(torch.int32)
    return b.stored(found) if b.integer(0, 3) else None


def transposed(b: Builder) -> list[fx.Node]:
    kind, to = dtype(b), dtype(b)
    groups = [1, 1, 2, 3][b.integer(0, 3)]
    depth, out = b.integer(1, 12), b.integer(1, 20)
    if b.integer(0, 3) == 0:  # depthwise
        groups, depth, out = b.integer(2, 30), 1, 1
    kernel, stride = [b.integer(1, 4) for _ in "hw"], [b.integer(1, 3) for _ in "hw"]
    dilation = [b.integer(1, 3) for _ in "hw"]
    more = [b.integer(0, max(stride[i], dilation[i]) - 1) for i in (0, 1)]
    # Small enough that some output is left.
    padding = [b.integer(0, min(dilation[i] * (kernel[i] - 1) // 2, 2)) for i in (0, 1)]
    x = b.input(kind, (b.integer(1, 2), depth * groups, b.integer(1, 6), b.integer(1, 6)))
    zero, lo, hi = b.bounds(to)
    weight = b.stored(b.values(torch.int8, (depth * groups, out, *kernel)).clamp(-127, 127))
    y = b.call(
        planish.conv_transpose2d_i8.default,
        *(x, weight, biases(b, out * groups), scales(b, out * groups, depth * 9)),
        *(stride, padding, more, dilation, groups, zero_point(b, kind), zero, lo, hi, to),
    )
    return [b.call(planish.clamp_i8.default, y, lo, lo + (hi - lo) // 2)]


def resized(b: Builder) -> list[fx.Node]:
    kind, to = dtype(b), dtype(b)
    x = image(b, kind)
    zero, lo, hi = b.bounds(to)
    tables: list[fx.Node] = []
    for size in b.specs[-1].shape[2:]:
        count = b.integer(1, 20)
        first = b.integers(0, 1024, (count, 1))
        weights = torch.cat([first, 1024 - first], 1).to(torch.int32)
        tables += [b.stored(b.integers(0, size - 1, (count, 2)).to(torch.int32)), b.stored(weights)]
    scale = float(torch.rand((), generator=b.random)) * 2.0**-20
    numbers = (zero_point(b, kind), zero, lo, hi, to)
    return [b.call(planish.resize_i8.default, x, *tables, scale, *numbers)]


def pads(b: Builder) -> list[fx.Node]:
    kind = dtype(b)
    value = zero_point(b, kind)
    x = image(b, kind)
    flat = b.input(kind, [b.integer(2, 5) for _ in range(b.integer(1, 5))])
    sides = [b.integer(0, 3) for _ in range(4)]
    # What a pad pads may be computed, and a convolution may read the padded image.
    y = b.call(planish.clamp_i8.default, x, *sorted((value, 100)))
    padded = b.call(planish.pad_i8.default, y, sides, value)
    channels = b.specs[-2].shape[1]
    around = [b.integer(0, 1)] * 4
    read = b.conv(padded, (5, channels, 2, 2), padding=around, x_zero=value, dtype=kind)
    return [
        b.call(planish.pad_i8.default, x, sides, zero_point(b, kind)),
        b.call(planish.pad_i8.default, x, [-1, 2, 0, -1, 1, 0], value),
        b.call(planish.pad_i8.default, flat, [b.integer(-1, 2) for _ in range(2)], value),
        b.call(planish.pad_i8.default, b.call(aten.flatten.using_ints, x, 2), [1, 0, 2, 1], value),
        read,
        b.call(planish.requantize_i8.default, y, 0.7, value, value, *b.bounds(kind)[1:], kind),
    ]


def real_layers(b: Builder) -> list[fx.Node]:
    kind = dtype(b)
    groups = [1, 1, 2, 12][b.integer(0, 3)]
    depth, out = b.integer(1, 9), b.integer(1, 20)
    x = b.input(kind, (b.integer(1, 2), depth * groups, b.integer(5, 7), b.integer(5, 7)))
    kernel, padding = [b.integer(1, 3), b.integer(1, 3)], [b.integer(0, 2) for _ in range(4)]
    weight = b.stored(b.values(torch.int8, (out * groups, depth, *kernel)))
    y = b.call(
        planish.conv2d_dq.default,
        *(x, weight, biases(b, out * groups), scales(b, out * groups, depth)),
        *([b.integer(1, 2), 1], padding, [1, b.integer(1, 2)], groups, zero_point(b, kind)),
    )
    rows = b.input(kind, [b.integer(1, 4) for _ in range(b.integer(0, 3))] + [depth])
    count = [out, 8, 16][b.integer(0, 2)]
    weight = b.stored(b.values(torch.int8, (count, depth)))
    z = b.call(
        planish.linear_dq.default,
        *(rows, weight, biases(b, count), scales(b, count, depth), zero_point(b, kind)),
    )
    return [y, z]


def lookups(b: Builder) -> list[fx.Node]:
    kind, index = dtype(b), INDICES[b.integer(0, 1)]
    table = b.stored(b.values(kind, (b.integer(4, 9), b.integer(1, 20))))
    numbers = b.input(index, [b.integer(1, 4) for _ in range(b.integer(1, 3))])
    row = b.input(index, (b.integer(1, 6),))
    x = b.input(kind, [b.integer(4, 6) for _ in range(3)])
    taken = b.call(aten.embedding.default, table, numbers)
    to = dtype(b)
    zero, lo, hi = b.bounds(to)
    stored = b.stored(b.integers(0, 3, (5,)).to(index))
    return [
        b.call(planish.requantize_i8.default, taken, 0.4, 3, zero, lo, hi, to),
        b.call(aten.embedding.default, table, stored),
        b.call(aten.index_select.default, x, b.integer(-3, 2), row),
        b.call(aten.index_select.default, x, b.integer(-3, 2), stored),
    ]


def movements(b: Builder) -> list[fx.Node]:
    kind = dtype(b)
    n, c, h, w = b.integer(1, 2), 4 * b.integer(1, 5), 4 * b.integer(1, 2), 4 * b.integer(1, 2)
    x = b.input(kind, (n, c, h, w))
    info = torch.iinfo(kind)
    computed = b.call(planish.clamp_i8.default, x, info.min, info.max - 5)
    sides = [b.integer(0, 3) for _ in range(4)]
    moved = [
        b.call(aten.select.int, computed, b.integer(-4, 3), -1),
        b.call(aten.roll.default, computed, [1, -1], [2, 3]),
        b.call(aten.roll.default, computed, [2], [1]),
        b.call(aten.repeat.default, computed, [1, 2, 1, 2]),
        b.call(aten.index_select.default, computed, 2, b.stored(torch.arange(2 * h) // 2)),
        b.call(aten.index_select.default, computed, 3, b.stored(torch.arange(w + 3) % w)),
        b.call(aten.reflection_pad2d.default, computed, sides),
        b.call(aten.replication_pad2d.default, computed, sides),
        b.call(aten.flip.default, computed, [1, 3]),
        b.call(aten.pixel_shuffle.default, computed, 2),
        b.call(aten.pixel_unshuffle.default, computed, 2),
        b.call(aten.expand.default, b.call(aten.select.int, x, 0, 0), [3, c, h, w]),
    ]
    if kind == torch.uint8:  # torch itself has no nearest upsampling of int8
        moved.append(b.call(aten.upsample_nearest2d.default, computed, [2 * h, 3 * w]))
        moved.append(b.call(aten.upsample_nearest2d.default, computed, [h + 3, w - 1]))
    low = info.min + 1
    return [b.call(planish.clamp_i8.default, y, low, info.max) for y in moved] + moved[:2]


CASES: dict[str, tuple[Case, int]] = {
    "transposed": (transposed, 7),
    "resized": (resized, 4),
    "pads": (pads, 3),
    "real_layers": (real_layers, 4),
    "lookups": (lookups, 4),
    "movements": (movements, 2),
}


def make_graph(builder: Builder, name: str, seed: int) -> Graph:
    case, count = CASES[name]
    b = builder(seed)
    return b.finish(*[output for _ in range(count) for output in case(b)])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_operator_equals_reference(builder: Builder, name: str, target: str) -> None:
    assert_equal(make_graph(builder, name, seed=1), target, 1, builder)


@pytest.mark.sweep
@pytest.mark.parametrize("target", [*PROCESSORS, *GPUS])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(2, 8))
def test_operator_sweep(builder: Builder, name: str, target: str, seed: int) -> None:
    assert_equal(make_graph(builder, name, seed), target, seed, builder, threads=1 + seed % 2)


@pytest.mark.parametrize("target", PROCESSORS)
def test_a_float_operator_reads_a_real_layer(builder: Builder, target: str) -> None:
    b = builder(1)
    y, z = real_layers(b)
    relus = [b.call(aten.relu.default, x) for x in (y, z)]
    assert_equal(b.finish(*relus), target, 1, builder)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(4, 2, 1, 1), (3, 2, 0, 2)])
def test_phases_cover_each_tap_of_each_output_once(
    kernel: int, stride: int, padding: int, dilation: int
) -> None:
    size, into = 11, 8
    wanted = {
        (out, tap, (out + padding - tap * dilation) // stride)
        for out in range(size)
        for tap in range(kernel)
        if (out + padding - tap * dilation) % stride == 0
    }
    found = [
        (phase.first + stride * i, tap, phase.start + i + number * phase.dilation)
        for phase in phases(kernel, stride, padding, dilation, size)
        for i in range(phase.count)
        for number, tap in enumerate(phase.taps)
    ]
    assert len(found) == len(wanted)
    assert set(found) == wanted
    assert max(row for _, _, row in found) <= into


def test_a_pad_before_a_convolution_moves_nothing(builder: Builder) -> None:
    b = builder(1)
    x = b.conv(b.input(torch.uint8, (1, 8, 6, 6)), (8, 8, 1, 1))
    padded = b.call(planish.pad_i8.default, x, [1, 2, 1, 0], 7)
    graph = b.finish(b.conv(padded, (8, 8, 3, 3), x_zero=7))
    assert_equal(graph, "x86-64-v3", 1, builder)
    steps = [step["kernel"] for step in build(graph, "x86-64-v3").manifest["steps"]]
    assert sum("map_copy" in name or "gather" in name for name in steps) == 0


@pytest.mark.parametrize("dtype", INDICES)
def test_an_index_outside_the_table_reads_its_nearest_row(
    builder: Builder, dtype: torch.dtype
) -> None:
    b = builder(1)
    table = b.values(torch.int8, (5, 3))
    graph = b.finish(b.call(aten.embedding.default, b.stored(table), b.input(dtype, (4,))))
    numbers = torch.tensor([-1, 5, torch.iinfo(dtype).max, torch.iinfo(dtype).min], dtype=dtype)
    got = build(graph, "x86-64-v3")(numbers.numpy())[0]
    assert np.array_equal(got, table.numpy()[[0, 4, 4, 0]])

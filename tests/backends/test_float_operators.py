"""Every operator of the table that may stay in float compiles, and gives what torch gives.

`SAMPLES` has an entry for each row; each group of them is one graph and one compilation.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from planish.backends import build
from planish.ir import Level
from planish.ir.ops import rows

aten = torch.ops.aten
INT64, BOOL = torch.int64, torch.bool


class Samples:
    """Makes inputs of a graph together with values for them."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder(7, Level.CANONICAL)
        self.values: list[torch.Tensor] = []

    def given(self, value: torch.Tensor) -> fx.Node:
        self.values.append(value)
        return self.builder.input(value.dtype, value.shape)

    def x(self, *shape: int, low: float = -3.0, high: float = 3.0) -> fx.Node:
        share = torch.rand(shape, generator=self.builder.random)
        return self.given(low + share * (high - low))

    def whole(self, high: int, *shape: int, dtype: torch.dtype = INT64) -> fx.Node:
        return self.given(self.builder.integers(0, high - 1, shape).to(dtype))

    def truth(self, *shape: int) -> fx.Node:
        return self.given(self.builder.integers(0, 1, shape).bool())

    def stored(self, *shape: int) -> fx.Node:
        return self.builder.stored(torch.randn(shape, generator=self.builder.random))

    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return self.builder.call(target, *args, **kwargs)

    def item(self, number: int, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return self.call(operator.getitem, self.call(target, *args, **kwargs), number)


Sample = Callable[[Samples], fx.Node]


def on(target: Any, shape: Sequence[int], *args: Any, **kwargs: Any) -> Sample:
    """A sample of an operator with one float tensor."""
    return lambda s: s.call(target, s.x(*shape), *args, **kwargs)


def pair(target: Any, *args: Any, **kwargs: Any) -> Sample:
    """A sample of an operator with two tensors that broadcast."""
    return lambda s: s.call(target, s.x(2, 3, 5), s.x(3, 1), *args, **kwargs)


def integers(target: Any, high: int = 5) -> Sample:
    return lambda s: s.call(target, s.whole(high, 3, 4), s.call(aten.add.Tensor, s.whole(3, 4), 1))


def unary(name: str, *args: Any, low: float = -3.0, high: float = 3.0) -> dict[str, list[Sample]]:
    target = getattr(aten, name).default
    return {name: [lambda s: s.call(target, s.x(3, 5, low=low, high=high), *args)]}


def layer(target: Any, weight: Sequence[int], x: Sequence[int], *args: Any) -> Sample:
    """A convolution with a stored weight and bias."""
    transposed = "transpose" in str(target)
    groups = args[3] if len(args) > 3 else 1
    out = weight[1] * groups if transposed else weight[0]
    return lambda s: s.call(target, s.x(*x), s.stored(*weight), s.stored(out), *args)


IMAGE = (2, 3, 9, 8)
UNARY: dict[str, list[Sample]] = {}
for _name in (
    *("sigmoid", "log_sigmoid", "tanh", "silu", "gelu", "mish", "elu", "selu", "celu", "relu"),
    *("leaky_relu", "hardswish", "hardsigmoid", "softplus", "exp", "expm1", "erf", "abs", "neg"),
    *("sign", "floor", "ceil", "round", "trunc", "sin", "cos", "atan", "sinh", "cosh", "asinh"),
):
    UNARY |= unary(_name)
for _name in ("log", "log1p", "sqrt", "rsqrt", "reciprocal"):
    UNARY |= unary(_name, low=0.1)
UNARY |= unary("acosh", low=1.1) | unary("tan", low=-1, high=1)
for _name in ("asin", "acos", "atanh"):
    UNARY |= unary(_name, low=-0.9, high=0.9)
UNARY |= {
    "clamp": [on(aten.clamp.default, (4, 3), -0.5, 0.7), on(aten.clamp.default, (4,), None, 0.1)],
    "dropout": [on(aten.dropout.default, (3, 4), 0.5, False)],
    "pow": [on(aten.pow.Tensor_Scalar, (9,), n) for n in (2, 3.0, -1)],
    "threshold": [on(aten.threshold.default, (9,), 0.1, -3.0)],
    "gelu": [on(aten.gelu.default, (9,)), on(aten.gelu.default, (9,), approximate="tanh")],
}
LAYERS: dict[str, list[Sample]] = {
    "conv2d": [
        layer(aten.conv2d.default, (6, 3, 3, 3), IMAGE, [2, 1], [1, 1]),
        layer(aten.conv2d.default, (6, 1, 3, 3), IMAGE, [1, 1], [0, 1], [2, 1], 3),
    ],
    "linear": [layer(aten.linear.default, (4, 5), (2, 3, 5))],
    "conv_transpose2d": [
        layer(aten.conv_transpose2d.input, (4, 3, 3, 3), (2, 4, 5, 4), [2, 2], [1, 1], [1, 0]),
        layer(aten.conv_transpose2d.input, (4, 3, 3, 2), (2, 4, 5, 4), [2, 3], [0, 1], [1, 0], 2),
    ],
    "conv3d": [layer(aten.conv3d.default, (4, 3, 2, 2, 3), (1, 3, 4, 5, 6), [1, 2, 1], [1, 0, 1])],
    "conv_transpose3d": [
        layer(
            aten.conv_transpose3d.input,
            *((4, 3, 3, 2, 2), (1, 4, 3, 5, 4), [2, 1, 2], [1, 0, 0], [1, 0, 0], 2, [1, 2, 1]),
        ),
    ],
    "batch_norm": [
        lambda s: s.call(
            aten.batch_norm.default,
            *(s.x(2, 3, 4, 4), s.stored(3), s.stored(3), s.stored(3)),
            *(s.builder.stored(torch.rand(3) + 0.5), False, 0.1, 1e-5, False),
        )
    ],
    "layer_norm": [
        lambda s: s.call(aten.layer_norm.default, s.x(2, 3, 4), [4], s.stored(4), s.stored(4)),
        on(aten.layer_norm.default, (2, 3, 4), [3, 4]),
    ],
    "group_norm": [
        lambda s: s.call(aten.group_norm.default, s.x(2, 6, 4, 3), 3, s.stored(6), s.stored(6)),
        on(aten.group_norm.default, (2, 6, 5), 6),
    ],
    "matmul": [
        lambda s: s.call(aten.matmul.default, s.x(2, 1, 3, 4), s.x(3, 4, 5)),
        lambda s: s.call(aten.matmul.default, s.x(4), s.x(4, 5)),
        lambda s: s.call(aten.matmul.default, s.whole(5, 3, 4), s.whole(5, 4, 2)),
    ],
    "embedding": [lambda s: s.call(aten.embedding.default, s.stored(5, 4), s.whole(5, 2, 3))],
    # Local response normalization, as it is spelled out: an average pool over channels.
    "avg_pool2d": [
        lambda s: s.call(
            aten.avg_pool2d.default,
            s.call(aten.mul.Tensor, *[s.x(2, 1, 10, 20)] * 2),
            *([5, 1], [1, 1]),
        ),
        on(aten.avg_pool2d.default, IMAGE, [3, 3], [2, 2], [1, 1], True, False),
        on(aten.avg_pool2d.default, IMAGE, [3, 2], [2, 2], [1, 1], True, True, 5),
    ],
    "max_pool2d": [
        on(aten.max_pool2d.default, IMAGE, [3, 2], [2, 1], [1, 0]),
        on(aten.max_pool2d.default, IMAGE, [2, 2], [2, 2], [0, 0], [1, 1], True),
    ],
    "max_pool2d_with_indices": [
        lambda s, n=number: s.item(
            n, aten.max_pool2d_with_indices.default, s.x(*IMAGE), [3, 2], [2, 1], [1, n]
        )
        for number in (0, 1)
    ],
    "max_pool3d": [on(aten.max_pool3d.default, (1, 2, 4, 5, 6), [2, 2, 2], [1, 2, 1], [1, 0, 1])],
    "avg_pool3d": [on(aten.avg_pool3d.default, (1, 2, 4, 5, 6), [2, 2, 2], [1, 2, 1])],
    "adaptive_avg_pool2d": [
        on(aten.adaptive_avg_pool2d.default, IMAGE, size) for size in ([1, 1], [4, 3])
    ],
    "resize": [
        on(aten.upsample_bilinear2d.default, IMAGE, [18, 5], False),
        on(aten.upsample_bilinear2d.default, IMAGE, [13, 11], True),
        on(aten.upsample_bilinear2d.default, IMAGE, [13, 20], False, 1.5, 2.5),
    ],
    "upsample_nearest2d": [
        on(aten.upsample_nearest2d.default, IMAGE, [18, 16]),
        on(aten.upsample_nearest2d.default, IMAGE, [13, 20], 1.5, 2.5),
    ],
    "grid_sampler_2d": [
        lambda s, m=mode, p=padding: s.call(
            aten.grid_sampler_2d.default, s.x(2, 2, 4, 5), s.x(2, 3, 6, 2), m, p, bool(p)
        )
        for mode, padding in ((0, 0), (0, 2), (1, 1))
    ],
    "grid_sampler_3d": [
        lambda s: s.call(
            aten.grid_sampler_3d.default, s.x(2, 2, 4, 5, 3), s.x(2, 3, 2, 2, 3), 0, 0, False
        )
    ],
    "col2im": [
        on(aten.col2im.default, (2, 12, 12), [5, 6], [2, 2], [2, 2], [1, 0], [2, 1]),
    ],
}
REDUCTIONS: dict[str, list[Sample]] = {
    "mean": [on(aten.mean.dim, (2, 3, 4), [1, 2]), on(aten.mean.dim, (2, 3), [-1], True)],
    "sum": [
        on(aten.sum.dim_IntList, (2, 3, 4), [0, 2], True),
        lambda s: s.call(aten.sum.dim_IntList, s.whole(9, 3, 4), [1]),
    ],
    "softmax": [on(aten.softmax.int, (2, 3, 4), 1)],
    "log_softmax": [on(aten.log_softmax.int, (2, 3, 4), -1)],
    "logsumexp": [on(aten.logsumexp.default, (2, 3, 4), [1, 2])],
    "amax": [on(aten.amax.default, (2, 3, 4), [1]), on(aten.amax.default, (2, 3), [])],
    "amin": [on(aten.amin.default, (2, 3, 4), [1, 2], True)],
    "prod": [on(aten.prod.dim_int, (2, 3), 1), on(aten.prod.dim_int, (2, 3), -1, True)],
    "argmax": [on(aten.argmax.default, (2, 9), 1), on(aten.argmax.default, (2, 9))],
    "argmin": [on(aten.argmin.default, (2, 9), -1, True)],
    "cumsum": [
        on(aten.cumsum.default, (2, 7, 3), 1),
        lambda s: s.call(aten.cumsum.default, s.truth(2, 7), -1),
    ],
    "cumprod": [on(aten.cumprod.default, (2, 7), 1)],
    "getitem": [
        lambda s: s.item(0, aten.topk.default, s.x(3, 9), 4),
        lambda s: s.item(1, aten.topk.default, s.x(9, 3), 4, 0, False),
        lambda s: s.item(0, aten.sort.default, s.whole(4, 2, 9), 1, True),
        lambda s: s.item(1, aten.sort.stable, s.whole(4, 2, 9), stable=True, dim=1),
        lambda s: s.item(1, aten.max.dim, s.x(3, 9), 1),
    ],
    "argsort": [on(aten.argsort.stable, (5, 3), stable=True, dim=0, descending=True)],
}
LOGIC: dict[str, list[Sample]] = {
    "add": [pair(aten.add.Tensor, alpha=0.3), integers(aten.add.Tensor)],
    "sub": [pair(aten.sub.Tensor, alpha=2), on(aten.sub.Tensor, (3,), 0.5)],
    "mul": [pair(aten.mul.Tensor), lambda s: s.call(aten.mul.Tensor, s.whole(9, 3), s.x(3))],
    "div": [pair(aten.div.Tensor), integers(aten.div.Tensor), on(aten.div.Tensor, (3,), 0.7)],
    "div_rounded": [
        pair(aten.div.Tensor_mode, rounding_mode="floor"),
        lambda s: s.call(
            aten.div.Tensor_mode, s.whole(9, 4), s.given(torch.tensor([2])), rounding_mode="trunc"
        ),
    ],
    "maximum": [pair(aten.maximum.default), integers(aten.maximum.default)],
    "minimum": [pair(aten.minimum.default)],
    "remainder": [pair(aten.remainder.Tensor), integers(aten.remainder.Tensor)],
    "remainder_scalar": [on(aten.remainder.Scalar, (9,), 0.7)],
    "fmod": [pair(aten.fmod.Tensor)],
    "power": [lambda s: s.call(aten.pow.Tensor_Tensor, s.x(4, low=0.1), s.x(3, 4))],
    **{
        name + suffix: [pair(overload) if not suffix else on(overload, (3, 4), 0.1)]
        for name in ("eq", "ne", "gt", "ge", "lt", "le")
        for suffix, overload in (
            ("", getattr(aten, name).Tensor),
            ("_scalar", getattr(aten, name).Scalar),
        )
    },
    **{
        f"logical_{name}": [
            lambda s, n=name: s.call(getattr(aten, f"logical_{n}").default, s.truth(9), s.truth(9))
        ]
        for name in ("and", "or", "xor")
    },
    "logical_not": [lambda s: s.call(aten.logical_not.default, s.truth(9))],
    **{
        f"bitwise_{name}": [integers(getattr(aten, f"bitwise_{name}").Tensor)]
        for name in ("and", "or", "xor")
    },
    "bitwise_not": [lambda s: s.call(aten.bitwise_not.default, s.whole(9, 4))],
    "shift_left": [integers(aten.bitwise_left_shift.Tensor)],
    "shift_right": [integers(aten.bitwise_right_shift.Tensor, high=90)],
    "where": [lambda s: s.call(aten.where.self, s.truth(2, 3), s.x(2, 3), s.x(3))],
    "cast": [
        lambda s: s.call(aten.to.dtype, s.x(9), INT64),
        lambda s: s.call(aten.to.dtype, s.truth(9), torch.float32),
        lambda s: s.call(aten.to.dtype, s.whole(9, 9, dtype=torch.uint8), torch.float32),
        lambda s: s.call(aten.to.dtype, s.x(9), torch.float16),
    ],
    "bit_cast": [on(aten.view.dtype, (9,), torch.int32)],
}
MOVEMENTS: dict[str, list[Sample]] = {
    "cat": [lambda s: s.call(aten.cat.default, [s.x(2, 3), s.x(2, 4)], 1)],
    "flatten": [on(aten.flatten.using_ints, IMAGE, 1)],
    "reshape": [on(aten.reshape.default, IMAGE, [2, -1])],
    "permute": [on(aten.permute.default, IMAGE, [0, 2, 3, 1])],
    "slice": [on(aten.slice.Tensor, IMAGE, 2, 1, -1, 2)],
    "select": [on(aten.select.int, IMAGE, 1, -1), on(aten.select.int, IMAGE, -1, 2)],
    "unsqueeze": [on(aten.unsqueeze.default, (2, 3), -1)],
    "squeeze": [on(aten.squeeze.dims, (2, 1, 3), [1])],
    "expand": [on(aten.expand.default, (2, 1, 3), [4, 2, -1, 3])],
    "repeat": [on(aten.repeat.default, (2, 3), [2, 1, 3])],
    "repeat_interleave": [on(aten.repeat_interleave.self_int, (2, 3), 2, 1)],
    "flip": [on(aten.flip.default, IMAGE, [1, 3])],
    "roll": [on(aten.roll.default, IMAGE, [1, -2], [1, 3]), on(aten.roll.default, (2, 3), [4])],
    "pixel_shuffle": [on(aten.pixel_shuffle.default, (1, 8, 3, 4), 2)],
    "pixel_unshuffle": [on(aten.pixel_unshuffle.default, (1, 2, 4, 6), 2)],
    "index_select": [
        lambda s: s.call(aten.index_select.default, s.x(2, 5), -1, s.whole(5, 3)),
    ],
    "reflection_pad2d": [on(aten.reflection_pad2d.default, IMAGE, [1, 2, 0, 3])],
    "replication_pad2d": [on(aten.replication_pad2d.default, IMAGE, [1, 2, 0, 3])],
    "pad": [
        on(aten.constant_pad_nd.default, IMAGE, [-1, 2, 0, -3], 0.5),
        lambda s: s.call(aten.constant_pad_nd.default, s.truth(2, 3), [1, 1], True),
    ],
    "full": [lambda s: s.call(aten.full.default, [2, 3], 1.5, dtype=torch.float32)],
    "arange": [lambda s: s.call(aten.arange.start_step, 0, 10, 3, dtype=INT64)],
    "triu": [on(aten.triu.default, (3, 4), 1)],
    "tril": [on(aten.tril.default, (3, 4))],
    "diagonal": [on(aten.diagonal.default, (3, 4, 5), 1, 0, 1)],
    "gather": [lambda s: s.call(aten.gather.default, s.x(3, 5), 1, s.whole(5, 3, 4))],
    "scatter": [
        lambda s: s.call(aten.scatter.src, s.x(3, 5), 1, s.given(torch.tensor([[4, 1]])), s.x(3, 2))
    ],
    "scatter_reduce": [
        lambda s, r=how: s.call(
            aten.scatter_reduce.two, s.x(3, 5), 0, s.whole(3, 2, 4), s.x(2, 4), r
        )
        for how in ("sum", "prod", "amax", "amin")
    ],
}
GROUPS = {
    "unary": UNARY,
    "layers": LAYERS,
    "reductions": REDUCTIONS,
    "logic": LOGIC,
    "movements": MOVEMENTS,
}
# sym_size gives a number, no tensor; fake_quantize is lowered before anything is compiled.
WITHOUT = {"sym_size", "fake_quantize"}


def test_every_row_has_a_sample() -> None:
    found = {name for samples in GROUPS.values() for name in samples}
    known = {
        row.name
        for row in rows()
        if Level.CANONICAL in row.levels and str(row.targets[0]).startswith(("aten.", "<built-in"))
    }
    assert sorted(known - WITHOUT - found) == []


@pytest.mark.parametrize("group", GROUPS)
def test_float_operators_equal_torch(builder: Any, group: str) -> None:
    samples = Samples(builder)
    named = [(name, sample) for name, found in GROUPS[group].items() for sample in found]
    graph = samples.builder.finish(*[sample(samples) for _, sample in named])
    expected = graph(*samples.values)
    got = build(graph, "x86-64-v3")(*[value.numpy() for value in samples.values])
    for (name, _), want, have in zip(named, expected, got, strict=True):
        assert have.dtype == want.numpy().dtype, name
        np.testing.assert_allclose(have, want.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)

"""The edges of float operators: NaN, indices outside, constant results, what can't be compiled."""

import operator
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import build
from planish.ir import Level, OperatorError

aten = torch.ops.aten
INT64 = torch.int64
on_both = pytest.mark.parametrize("target", ["x86-64-v3", "cuda-sm80"])
on_dtypes = pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        pytest.param(torch.float16, marks=pytest.mark.sweep),
        pytest.param(torch.float64, marks=pytest.mark.sweep),
    ],
)


@on_both
def test_special_values_pass_as_in_torch(builder: Any, target: str) -> None:
    b = builder(1, Level.CANONICAL)
    x = b.input(torch.float32, (6,))
    values = torch.tensor([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45])
    unary = (aten.relu.default, aten.sigmoid.default, aten.exp.default, aten.neg.default)
    ordered = [b.call(operator.getitem, b.call(aten.sort.default, x), i) for i in (0, 1)]
    same = b.call(aten.eq.Tensor, x, x)
    graph = b.finish(*[b.call(each, x) for each in unary], *ordered, same)
    got = b.compile(graph, target)(values.numpy())
    for want, have in zip(graph(values), got, strict=True):
        np.testing.assert_allclose(have, want.numpy(), rtol=1e-6)


def assert_as_in_torch(builder: Any, target: str, graph: Any, *values: torch.Tensor) -> None:
    got = builder.compile(graph, target)(*[value.numpy() for value in values])
    for number, (want, have) in enumerate(zip(graph(*values), got, strict=True)):
        np.testing.assert_array_equal(have, want.numpy(), err_msg=f"result {number}")


SPECIAL = torch.tensor([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -2.0, np.nan])


@on_both
@on_dtypes
def test_comparisons_and_what_negates_them(builder: Any, target: str, dtype: torch.dtype) -> None:
    b = builder(1, Level.CANONICAL)
    left, right = (grid.to(dtype) for grid in torch.meshgrid(SPECIAL, SPECIAL, indexing="ij"))
    x, y = b.input(dtype, left.shape), b.input(dtype, right.shape)
    truth = b.stored(torch.tensor(True))
    outputs = []
    for name in ("eq", "ne", "lt", "ge"):
        compare = getattr(aten, name)
        result = b.call(compare.Tensor, x, y)
        outputs += [
            result,
            b.call(aten.logical_not.default, result),
            b.call(aten.bitwise_not.default, result),
            b.call(aten.bitwise_xor.Tensor, result, truth),
            b.call(aten.ne.Tensor, result, truth),
        ]
        for compared in ((compare.Tensor, x, y), (compare.Tensor, x, x), (compare.Scalar, x, 1.5)):
            # Each of its own, so that it is computed together with its reader.
            negated = b.call(aten.logical_not.default, b.call(*compared))
            outputs.append(b.call(aten.where.self, negated, x, y))
    below, above = b.call(aten.le.Scalar, x, 0.0), b.call(aten.gt.Scalar, x, 0.0)
    either = b.call(aten.where.self, below, y, b.stored(torch.tensor(7.0, dtype=dtype)))
    outputs.append(b.call(aten.where.self, above, x, either))
    assert_as_in_torch(b, target, b.finish(*outputs), left, right)


@on_both
def test_no_sum_is_taken_apart(builder: Any, target: str) -> None:
    b = builder(1, Level.CANONICAL)
    left, right = torch.meshgrid(SPECIAL * 0.3, SPECIAL + 1e-9, indexing="ij")
    x, y = b.input(torch.float32, left.shape), b.input(torch.float32, right.shape)
    graph = b.finish(
        b.call(aten.sub.Tensor, x, x),
        b.call(aten.sub.Tensor, b.call(aten.add.Tensor, x, y), x),
        b.call(aten.sub.Tensor, b.call(aten.add.Tensor, x, 2.0**23), 2.0**23),
    )
    assert_as_in_torch(b, target, graph, left, right)


def lines(size: int) -> torch.Tensor:
    """Lines of one value alone, of several, with ties, and with NaNs in the middle."""
    order = torch.Generator().manual_seed(size)
    made = [torch.full((size,), value) for value in (np.inf, -np.inf, np.nan)]
    for kept in (SPECIAL, SPECIAL[1:-1]):
        made.append(kept[torch.randint(len(kept), (size,), generator=order)])
    return torch.stack(made)


@on_both
@pytest.mark.parametrize("size", [pytest.param(5, marks=pytest.mark.sweep), 700])
def test_extremes(builder: Any, target: str, size: int) -> None:
    b = builder(1, Level.CANONICAL)
    values, whole = lines(size), torch.full((2, size), torch.iinfo(INT64).min)
    x, n = b.input(torch.float32, values.shape), b.input(INT64, whole.shape)
    outputs = []
    for name in ("amax", "amin", "argmax", "argmin"):
        operation = getattr(aten, name).default
        each = (lambda axis: axis) if name.startswith("arg") else (lambda axis: [axis])
        outputs += [b.call(operation, x, each(axis)) for axis in (0, 1)]
        outputs += [b.call(operation, x), b.call(operation, n, each(1), True)]
    for operation in (aten.max.dim, aten.min.dim):
        both = b.call(operation, x, 1)
        outputs += [b.call(operator.getitem, both, number) for number in (0, 1)]
    graph = b.finish(*outputs)
    assert_as_in_torch(b, target, graph, values, whole)


@on_both
def test_nan_is_kept(builder: Any, target: str) -> None:
    b = builder(1, Level.CANONICAL)
    left, right = torch.meshgrid(SPECIAL, SPECIAL, indexing="ij")
    x, y = b.input(torch.float32, left.shape), b.input(torch.float32, right.shape)
    image = b.call(aten.reshape.default, x, [1, 1, 8, 8])
    one = (aten.relu6, aten.hardsigmoid, aten.hardtanh, aten.relu)
    graph = b.finish(
        b.call(aten.maximum.default, x, y),
        b.call(aten.minimum.default, x, y),
        b.call(aten.remainder.Tensor, x, y),
        b.call(aten.remainder.Scalar, x, -0.7),
        b.call(aten.div.Tensor_mode, x, y, rounding_mode="floor"),
        b.call(aten.max_pool2d.default, image, [3, 3], [1, 1], [1, 1]),
        *(b.call(operation.default, x) for operation in one),
        b.call(aten.ne.Scalar, b.call(aten.elu.default, x), 0.0),
        b.call(aten.isnan.default, b.call(aten.elu.default, x)),
    )
    assert_as_in_torch(b, target, graph, left, right)


@on_both
@on_dtypes
def test_sorting(builder: Any, target: str, dtype: torch.dtype) -> None:
    b = builder(1, Level.CANONICAL)
    values = lines(40).to(dtype)
    x = b.input(dtype, values.shape)
    outputs = []
    for down in (False, True):
        ordered = b.call(aten.sort.stable, x, stable=True, dim=1, descending=down)
        outputs += [b.call(operator.getitem, ordered, number) for number in (0, 1)]
        outputs.append(b.call(aten.argsort.stable, x, stable=True, dim=0, descending=down))
        # Which of equal values torch's topk takes isn't said.
        outputs.append(b.call(operator.getitem, b.call(aten.topk.default, x, 9, 1, down), 0))
    assert_as_in_torch(b, target, b.finish(*outputs), values)


@on_both
def test_an_index_outside_stays_inside_the_tensor(builder: Any, target: str) -> None:
    b = builder(1, Level.CANONICAL)
    index = b.input(INT64, (4,))
    table = torch.arange(10.0).reshape(5, 2)
    stored, changed = b.stored(table), b.stored(torch.zeros(5))
    taken = [
        b.call(aten.embedding.default, stored, index),
        b.call(aten.index_select.default, stored, 0, index),
        b.call(aten.gather.default, b.stored(table[:, 0].contiguous()), 0, index),
    ]
    written = b.call(aten.scatter.src, changed, 0, index, b.stored(torch.ones(4)))
    network = b.compile(b.finish(*taken, written), target)
    got = network(np.array([-(2**40), -1, 5, 2**62]))
    for rows_taken in got[:2]:
        assert np.array_equal(rows_taken, table.numpy()[[0, 0, 4, 4]])
    assert np.array_equal(got[2], [0, 0, 8, 8])
    assert not got[3].any()


@on_both
def test_a_stored_tensor_and_a_constant_are_outputs(builder: Any, target: str) -> None:
    b = builder(1, Level.CANONICAL)
    x = b.input(torch.float32, (3,))
    kept = torch.arange(6).reshape(2, 3)
    graph = b.finish(b.stored(kept), b.call(aten.full.default, [2], 3.0), x)
    got = b.compile(graph, target)(np.ones(3, np.float32))
    assert np.array_equal(got[0], kept.numpy())
    assert np.array_equal(got[1], [3, 3])


@pytest.mark.parametrize("processor", ["x86-64-v3", "cuda-sm80"])
@pytest.mark.parametrize(
    ("target", "dtype", "said"),
    [
        (aten.lgamma.default, torch.float32, "lgamma.*there is no kernel for it"),
        (aten.nonzero.default, torch.float32, "nonzero.*depends on the data"),
        (aten.linear.default, torch.float64, r"linear.*float64.*model\.float\(\)"),
    ],
)
def test_what_has_no_kernel_is_named(
    builder: Any, target: Any, dtype: torch.dtype, said: str, processor: str
) -> None:
    b = builder(1, Level.CANONICAL)
    x = b.call(aten.relu.default, b.input(dtype, (2, 3)))
    weight = [b.stored(torch.ones(4, 3, dtype=dtype))] if target is aten.linear.default else []
    graph = b.finish(x, b.call(target, x, *weight))
    with pytest.raises(OperatorError, match=said):
        build(graph, processor)


def test_bfloat16_is_refused(builder: Any) -> None:
    b = builder(1, Level.CANONICAL)
    x = b.call(aten.to.dtype, b.input(torch.float32, (3,)), torch.bfloat16)
    with pytest.raises(OperatorError, match=r"bfloat16.*model\.float\(\)"):
        build(b.finish(x), "x86-64-v3")


def test_the_operators_can_be_imported_alone() -> None:
    subprocess.run([sys.executable, "-c", "import planish.backends.operators"], check=True)

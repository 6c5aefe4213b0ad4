"""The edges of float operators: NaN, indices outside, constant results, what can't be compiled."""

import operator
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import build
from planish.ir import Level, OperatorError

aten = torch.ops.aten
INT64 = torch.int64
on_both = pytest.mark.parametrize("target", ["x86-64-v3", "cuda-sm80"])


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

"""The integer operators against formulas written out in NumPy, value by value."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.ir.integer import fixed_point_add, requantize_multiplier
from planish.ir.integer.pooling import pooled_size

ops = torch.ops.planish
DTYPES = {torch.uint8: (0, 255), torch.int8: (-128, 127)}


def rne_requantize(acc: int, multiplier: float, zero: int, lo: int, hi: int) -> int:
    """The contract's formula on one accumulator; NumPy's rint rounds ties to even."""
    wrapped = (int(acc) + 2**31) % 2**32 - 2**31
    product = np.float32(np.float32(wrapped) * np.float32(multiplier))
    return int(min(max(np.rint(np.float64(product)) + zero, lo), hi))


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_group, out_group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)), draw(st.integers(1, 3))]
    dilation = [draw(st.integers(1, 2)), draw(st.integers(1, 2))]
    reach = [dilation[i] * (kernel[i] - 1) + 1 for i in range(2)]
    return {
        "groups": groups,
        "weight": (groups * out_group, per_group, *kernel),
        "x": (2, groups * per_group, reach[0] + draw(st.integers(0, 3)), reach[1] + 2),
        "stride": [draw(st.integers(1, 3)), draw(st.integers(1, 2))],
        "padding": [draw(st.integers(0, 2)) for _ in range(4)],
        "dilation": dilation,
        "dtype": draw(st.sampled_from(list(DTYPES))),
        "out_dtype": draw(st.sampled_from(list(DTYPES))),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "extreme": draw(st.booleans()),
    }


def random_integers(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: torch.dtype, extreme: bool
) -> torch.Tensor:
    lo, hi = DTYPES[dtype]
    values = rng.choice([lo, hi], shape) if extreme else rng.integers(lo, hi + 1, shape)
    return torch.tensor(values).to(dtype)


@given(convolutions())
@settings(max_examples=60, deadline=None)
def test_conv2d_i8(case: dict[str, Any]) -> None:
    rng = np.random.default_rng(case["seed"])
    x = random_integers(rng, case["x"], case["dtype"], case["extreme"])
    weight = random_integers(rng, case["weight"], torch.int8, case["extreme"])
    out = case["weight"][0]
    bias = torch.tensor(rng.integers(-(2**20), 2**20, out), dtype=torch.int32)
    multiplier = torch.tensor(rng.random(out) * 2e-3, dtype=torch.float32)
    lo, hi = DTYPES[case["out_dtype"]]
    x_zero = int(rng.integers(*DTYPES[case["dtype"]]))
    y_zero = int(rng.integers(lo, hi))
    got = ops.conv2d_i8(
        *(x, weight, bias, multiplier, case["stride"], case["padding"], case["dilation"]),
        *(case["groups"], x_zero, y_zero, lo, hi, case["out_dtype"]),
    )
    top, left, bottom, right = case["padding"]
    padded = np.pad(
        x.numpy().astype(np.int64) - x_zero, [(0, 0), (0, 0), (top, bottom), (left, right)]
    )
    _, per_group, kh, kw = case["weight"]
    n, _, oh, ow = got.shape
    for index in np.ndindex(n, out, oh, ow):
        b, o, i, j = index
        first = o // (out // case["groups"]) * per_group
        rows = slice(i * case["stride"][0], None, case["dilation"][0])
        columns = slice(j * case["stride"][1], None, case["dilation"][1])
        window = padded[b, first : first + per_group, rows, columns][:, :kh, :kw]
        acc = int((window * weight[o].numpy().astype(np.int64)).sum()) + int(bias[o])
        assert int(got[index]) == rne_requantize(acc, float(multiplier[o]), y_zero, lo, hi)


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_linear_i8(seed: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    x = random_integers(rng, (2, 3, 40), torch.uint8, extreme)
    weight = random_integers(rng, (5, 40), torch.int8, extreme)
    multiplier = torch.tensor(rng.random(5) * 1e-3, dtype=torch.float32)
    got = ops.linear_i8(x, weight, None, multiplier, 7, -3, -128, 127, torch.int8)
    acc = (x.numpy().astype(np.int64) - 7) @ weight.numpy().astype(np.int64).T
    for index in np.ndindex(*got.shape):
        expected = rne_requantize(int(acc[index]), float(multiplier[index[-1]]), -3, -128, 127)
        assert int(got[index]) == expected


def test_accumulator_wraps_at_32_bits() -> None:
    x = torch.full((1, 40000), 255, dtype=torch.uint8)
    weight = torch.full((1, 40000), 127, dtype=torch.int8)
    bias = torch.tensor([2**31 - 1], dtype=torch.int32)
    one = torch.tensor([2.0**-24])
    got = ops.linear_i8(x, weight, bias, one, 0, 0, -128, 127, torch.int8)
    assert int(got) == rne_requantize(40000 * 255 * 127 + 2**31 - 1, 2.0**-24, 0, -128, 127)
    assert int(got) < 0


@pytest.mark.parametrize(("acc", "expected"), [(1, 0), (3, 2), (5, 2), (-1, 0), (-3, -2), (-5, -2)])
def test_requantize_rounds_ties_to_even(acc: int, expected: int) -> None:
    x = torch.tensor([acc], dtype=torch.int8)
    assert int(ops.requantize_i8(x, 0.5, 0, 0, -128, 127, torch.int8)) == expected


@given(
    st.floats(1e-4, 10.0), st.floats(1e-4, 10.0), st.floats(1e-4, 10.0), st.integers(0, 2**32 - 1)
)
@settings(max_examples=60, deadline=None)
def test_add_i8(a_scale: float, b_scale: float, y_scale: float, seed: int) -> None:
    a_multiplier, b_multiplier, shift = fixed_point_add(a_scale, b_scale, y_scale)
    assert 16000 < max(a_multiplier, b_multiplier) <= 32767
    rng = np.random.default_rng(seed)
    a = random_integers(rng, (2, 3, 4, 4), torch.uint8, seed % 2 == 0)
    b = random_integers(rng, (2, 3, 1, 1), torch.int8, seed % 2 == 0)
    multipliers = (a_multiplier, b_multiplier, shift)
    got = ops.add_i8(a, b, 128, -5, *multipliers, 9, 0, 200, torch.uint8)
    wide = np.broadcast_to(b.numpy(), a.shape).astype(np.int64)
    for index in np.ndindex(*got.shape):
        acc = (int(a[index]) - 128) * a_multiplier + (int(wide[index]) + 5) * b_multiplier
        assert abs(acc) < 2**24
        exact = acc / 2.0**shift  # float64 holds it exactly
        rounded = math.floor(exact + 0.5)
        rounded -= rounded % 2 if exact + 0.5 == rounded else 0
        assert int(got[index]) == min(max(rounded + 9, 0), 200)


def test_fixed_point_add_is_exact_for_dyadic_scales() -> None:
    a, b, shift = fixed_point_add(0.75, 0.5, 1.0)
    assert (a * 2.0**-shift, b * 2.0**-shift) == (0.75, 0.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_table_i8(dtype: torch.dtype) -> None:
    lo, hi = DTYPES[dtype]
    x = torch.arange(lo, hi + 1).to(dtype)
    table = torch.arange(255, -1, -1).to(torch.uint8)
    assert ops.table_i8(x, table).tolist() == table.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), [(7, 3, 2, 1), (8, 2, 3, 0)])
def test_max_pool_is_torchs(
    dtype: torch.dtype, ceil_mode: bool, size: int, kernel: int, stride: int, padding: int
) -> None:
    rng = np.random.default_rng(0)
    x = random_integers(rng, (2, 3, size, size + 1), dtype, extreme=False)
    expected = torch.nn.functional.max_pool2d(
        x.float(), kernel, stride, padding, ceil_mode=ceil_mode
    )
    got = ops.max_pool2d_i8(x, [kernel] * 2, [stride] * 2, [padding] * 4, [1, 1], ceil_mode)
    assert torch.equal(got.float(), expected)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_pooled_size_is_torchs(
    size: int, kernel: int, stride: int, padding: int, ceil_mode: bool
) -> None:
    if padding > kernel // 2 or size + 2 * padding < kernel:
        return
    expected = torch.nn.functional.max_pool1d(
        torch.zeros(1, 1, size), kernel, stride, padding, ceil_mode=ceil_mode
    )
    assert pooled_size(size, kernel, stride, padding, padding, 1, ceil_mode) == expected.shape[-1]


def test_average_pool_counts_by_position() -> None:
    x = torch.tensor([[[[10, 20, 30]]]], dtype=torch.uint8)
    counts = torch.tensor([[2.0, 2.0]])  # the first window holds one padded position
    multiplier = 1.0 / counts
    got = ops.avg_pool2d_i8(
        x, multiplier, [1, 2], [1, 2], [0, 1, 0, 0], False, 0, 0, 0, 255, torch.uint8
    )
    assert got.flatten().tolist() == [5, 25]


def test_adaptive_average_pool_windows_overlap_as_torchs() -> None:
    x = torch.arange(25, dtype=torch.uint8).view(1, 1, 5, 5)
    expected = torch.nn.functional.adaptive_avg_pool2d(x.float(), (2, 3))
    sums = torch.full((2, 3), 1.0)
    got = ops.adaptive_avg_pool2d_i8(x, sums / 6.0, [2, 3], 0, 0, 0, 255, torch.uint8)
    counts = torch.tensor([[3 * 2, 3 * 3, 3 * 2]] * 2)
    assert torch.equal(got[0, 0].float(), torch.round(expected[0, 0] * counts / 6.0))


@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20),
    st.floats(2**-10, 4.0, width=32),
    st.integers(0, 255),
)
def test_fake_quantize_is_quantize_then_dequantize(
    values: list[float], scale: float, zero_point: int
) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    fake = ops.fake_quantize(
        x, torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32), None, 0, 255
    )
    integers = ops.quantize(x, scale, zero_point, 0, 255, torch.uint8)
    assert torch.equal(fake, ops.dequantize(integers, scale, zero_point))


def test_quantize_of_what_is_not_finite() -> None:
    x = torch.tensor([math.nan, math.inf, -math.inf])
    assert ops.quantize(x, 0.1, 3, 1, 200, torch.uint8).tolist() == [1, 200, 1]


def test_fake_quantize_passes_the_gradient_straight_through_inside_the_clamp() -> None:
    x = torch.tensor([-2.0, -0.4, 0.3, 9.0], requires_grad=True)
    zero = torch.tensor(10, dtype=torch.int32)
    ops.fake_quantize(x, torch.tensor(0.1), zero, None, 0, 50).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_fake_quantize_per_channel() -> None:
    x = torch.tensor([[1.0, 2.0], [10.0, 20.0]])
    scale = torch.tensor([1.0, 8.0])
    zeros = torch.zeros(2, dtype=torch.int32)
    got = ops.fake_quantize(x, scale, zeros, 0, -127, 127)
    assert got.tolist() == [[1.0, 2.0], [8.0, 16.0]]  # 20 / 8 = 2.5 rounds to 2


def test_multiplier_is_computed_in_float64_and_rounded_once() -> None:
    got = requantize_multiplier(0.1, torch.tensor([0.3]), 0.7)
    exact = 0.1 * float(torch.tensor(0.3)) / 0.7
    assert float(got) == float(np.float32(exact))

"""Products, softmax, normalization, means and resampling against formulas in whole numbers."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

ops = torch.ops.planish
DTYPES = {torch.uint8: (0, 255), torch.int8: (-128, 127)}
SEEDS = st.integers(0, 2**32 - 1)


def requantized(acc: int, multiplier: float, zero: int, lo: int, hi: int) -> int:
    """The contract's last step on one accumulator, which wraps at 32 bits."""
    wrapped = (int(acc) + 2**31) % 2**32 - 2**31
    product = np.float32(np.float32(wrapped) * np.float32(multiplier))
    return int(min(max(np.rint(np.float64(product)) + zero, lo), hi))


def drawn(rng: np.random.Generator, shape: tuple[int, ...], extreme: bool = False) -> torch.Tensor:
    """Return bytes of a random dtype: any values, or only the smallest and the largest."""
    dtype = list(DTYPES)[int(rng.integers(2))]
    lo, hi = DTYPES[dtype]
    values = rng.choice([lo, hi], shape) if extreme else rng.integers(lo, hi + 1, shape)
    return torch.tensor(values).to(dtype)


def wide(x: torch.Tensor, zero: int) -> np.ndarray[Any, Any]:
    return x.numpy().astype(np.int64) - zero


@given(SEEDS, st.booleans())
@settings(max_examples=30, deadline=None)
def test_mul_i8(seed: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = drawn(rng, (2, 3, 4), extreme), drawn(rng, (3, 1), extreme)
    za, zb, zy = (int(v) for v in rng.integers(-100, 100, 3))
    multiplier = float(np.float32(rng.random() * 0.02))
    got = ops.mul_i8(a, b, multiplier, za, zb, zy, -100, 127, torch.int8)
    product = wide(a, za) * wide(b, zb)
    for index in np.ndindex(2, 3, 4):
        assert int(got[index]) == requantized(int(product[index]), multiplier, zy, -100, 127)


@given(SEEDS, st.booleans())
@settings(max_examples=30, deadline=None)
def test_matmul_i8_and_dq(seed: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = drawn(rng, (2, 1, 3, 9), extreme), drawn(rng, (4, 9, 2), extreme)
    za, zb, zy = (int(v) for v in rng.integers(-100, 100, 3))
    multiplier = float(np.float32(rng.random() * 0.002))
    got = ops.matmul_i8(a, b, multiplier, za, zb, zy, -128, 127, torch.int8)
    real = ops.matmul_dq(a, b, multiplier, za, zb)
    assert got.shape == (2, 4, 3, 2)
    acc = wide(a, za) @ wide(b, zb)
    for index in np.ndindex(*got.shape):
        assert int(got[index]) == requantized(int(acc[index]), multiplier, zy, -128, 127)
        assert float(real[index]) == float(np.float32(acc[index]) * np.float32(multiplier))


def test_matmul_wraps_at_32_bits() -> None:
    a = torch.full((1, 40000), 255, dtype=torch.uint8)
    b = torch.full((40000, 1), 255, dtype=torch.uint8)
    got = ops.matmul_i8(a, b, 2.0**-24, 0, 0, 0, -128, 127, torch.int8)
    assert int(got) == requantized(40000 * 255 * 255, 2.0**-24, 0, -128, 127) < 0


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_real_results_are_the_sums_times_the_multiplier(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, weight = drawn(rng, (2, 4, 5, 5)), torch.tensor(rng.integers(-128, 128, (6, 2, 3, 2)))
    bias = torch.tensor(rng.integers(-(2**20), 2**20, 6), dtype=torch.int32)
    scale = torch.tensor(rng.random(6) * 1e-3, dtype=torch.float32)
    shape = ([2, 1], [1, 0, 1, 1], [1, 2], 2, 7)
    got = ops.conv2d_dq(x, weight.to(torch.int8), bias, scale, *shape)
    padded = F.pad(x.double() - 7, [0, 1, 1, 1])
    exact = F.conv2d(padded, weight.double(), bias.double(), [2, 1], 0, [1, 2], 2)
    assert torch.equal(got, exact.float() * scale.view(-1, 1, 1))
    rows, flat = drawn(rng, (3, 2, 12)), weight.view(6, 12)
    got = ops.linear_dq(rows, flat.to(torch.int8), bias, scale, -5)
    exact = F.linear(rows.double() + 5, flat.double(), bias.double())
    assert torch.equal(got, exact.float() * scale)


def exponentials(scale: float, length: int) -> torch.Tensor:
    bits = min(23, math.floor(math.log2((2**31 - 1) / length)))
    return torch.tensor([round(math.exp(-d * scale) * 2**bits) for d in range(256)]).int()


@given(SEEDS, st.floats(1e-3, 1.0), st.sampled_from([-1, 1]), st.booleans())
@settings(max_examples=30, deadline=None)
def test_softmax_i8(seed: int, scale: float, dim: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    x = drawn(rng, (2, 5, 7), extreme)
    table = exponentials(scale, x.shape[dim])
    got = ops.softmax_i8(x, table, dim, 255.0, 3, 0, 250, torch.uint8)
    rows, results = x.movedim(dim, -1).reshape(-1, x.shape[dim]), got.movedim(dim, -1)
    for row, result in zip(rows.tolist(), results.reshape(-1, x.shape[dim]).tolist(), strict=True):
        entries = [int(table[max(row) - value]) for value in row]
        ratio = np.float32(255.0) / np.float32(sum(entries))
        expected = [np.rint(np.float64(np.float32(e) * ratio)) + 3 for e in entries]
        assert result == [int(min(max(value, 0), 250)) for value in expected]
    exact = torch.softmax(x.double() * scale, dim)
    inside = got < 250
    assert float((got.double() - 3 - exact * 255)[inside].abs().max()) < 0.51


def test_softmax_of_a_long_row_does_not_overflow() -> None:
    x = torch.full((1, 2**12), 255, dtype=torch.uint8)
    got = ops.softmax_i8(x, exponentials(0.1, 2**12), 1, 2.0**14, 0, 0, 255, torch.uint8)
    assert got.unique().tolist() == [4]


@given(SEEDS, st.booleans())
@settings(max_examples=25, deadline=None)
def test_layer_norm_i8(seed: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    x = drawn(rng, (3, 2, 6), extreme)
    gain = torch.tensor(rng.normal(size=(2, 6)) * 5000, dtype=torch.float32)
    offset = torch.tensor(rng.integers(-5000, 5000, (2, 6)), dtype=torch.int32)
    epsilon, zero = int(rng.integers(0, 50)), int(rng.integers(-9, 9))
    got = ops.layer_norm_i8(x, gain, offset, 2, epsilon, zero, 4, -120, 127, torch.int8)
    for sample, centered in enumerate(wide(x, zero)):
        total, squares = int(centered.sum()), int((centered**2).sum())
        root = np.sqrt(np.float32(12 * squares - total * total + epsilon))
        inverse = np.float32(1.0) / root if root > 0 else np.float32(0.0)
        for i, j in np.ndindex(2, 6):
            deviation = np.float32(12 * int(centered[i, j]) - total)
            scaled = np.float32(deviation * inverse) * np.float32(gain[i, j])
            t = int(np.rint(np.clip(scaled, -(2**22), 2**22))) + int(offset[i, j])
            assert int(got[sample, i, j]) == requantized(t, 2.0**-8, 4, -120, 127)


def test_layer_norm_of_a_constant_row_is_its_offset() -> None:
    x = torch.full((1, 2**15), 255, dtype=torch.uint8)
    ones = torch.full((2**15,), 2560.0)
    offset = torch.full((2**15,), 7 * 256, dtype=torch.int32)
    got = ops.layer_norm_i8(x, ones, offset, 1, 0, 0, 0, -128, 127, torch.int8)
    assert got.unique().tolist() == [7]


def test_layer_norm_takes_the_nearest_root() -> None:
    """A root that is off in its last bit moves t, here near 2**22 and a tie, by a step."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        x = rng.integers(0, 256, 16)
        total, squares = int(x.sum()), int((x * x).sum())
        root = np.sqrt(np.float32(16 * squares - total * total + 77))
        share = (16 * x - total).astype(np.float32) * (np.float32(1) / root)
        gain = (np.resize([3900001.25, 3900002.75], 16) / share).astype(np.float32)
        t = np.rint(share * gain).astype(np.int64)
        for middle, expected in ((128, 0), (129, 1)):  # 128 / 256 is rounded to even
            offset = torch.tensor(middle - t).to(torch.int32)
            rest = (1, 77, 0, 0, -128, 127, torch.int8)
            rows = torch.tensor(x).to(torch.uint8).repeat(64, 1)
            y = ops.layer_norm_i8(rows, torch.tensor(gain), offset, *rest)
            assert (y == expected).all()


def test_layer_norm_of_the_longest_row_is_exact() -> None:
    """Half of 2**15 values at each end: deviation and variance at their largest."""
    x = torch.tensor([0, 255] * 2**14, dtype=torch.uint8)[None]
    gain, zeros = torch.full((2**15,), 25600.0), torch.zeros(2**15, dtype=torch.int32)
    got = ops.layer_norm_i8(x, gain, zeros, 1, 0, 0, 0, -128, 127, torch.int8)
    assert got[0, :2].tolist() == [-100, 100]


@given(SEEDS, st.sampled_from([([1], False), ([0, -1], True), ([2], True)]))
@settings(max_examples=20, deadline=None)
def test_mean_i8(seed: int, axes: tuple[list[int], bool]) -> None:
    rng = np.random.default_rng(seed)
    x, (dim, keepdim) = drawn(rng, (3, 4, 5)), axes
    multiplier = float(np.float32(rng.random() / 4))
    got = ops.mean_i8(x, dim, keepdim, multiplier, 3, -2, -128, 127, torch.int8)
    total = wide(x, 3).sum(tuple(dim), keepdims=keepdim)
    assert got.shape == total.shape
    for index in np.ndindex(*total.shape):
        assert int(got[index]) == requantized(total[index], multiplier, -2, -128, 127)


@given(SEEDS, st.booleans())
@settings(max_examples=20, deadline=None)
def test_conv_transpose2d_i8(seed: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    x = drawn(rng, (2, 4, 3, 4), extreme)
    weight = torch.tensor(rng.integers(-128, 128, (4, 3, 2, 3))).to(torch.int8)
    bias = torch.tensor(rng.integers(-(2**20), 2**20, 6), dtype=torch.int32)
    multiplier = torch.tensor(rng.random(6) * 1e-3, dtype=torch.float32)
    got = ops.conv_transpose2d_i8(
        *(x, weight, bias, multiplier, [2, 3], [1, 0], [1, 2], [1, 1], 2),
        *(9, 5, -128, 127, torch.int8),
    )
    sums = np.zeros((2, 6, 8, 16), dtype=np.int64)
    for n, c, i, j in np.ndindex(*x.shape):
        first = c // 2 * 3
        value = int(x[n, c, i, j]) - 9
        sums[n, first : first + 3, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3] += value * wide(
            weight[c], 0
        )
    sums = sums[:, :, 1:6, :14] + bias.numpy().astype(np.int64).reshape(-1, 1, 1)
    assert got.shape == sums.shape
    for index in np.ndindex(*got.shape):
        factor = float(multiplier[index[1]])
        assert int(got[index]) == requantized(int(sums[index]), factor, 5, -128, 127)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_resize_i8(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = drawn(rng, (1, 2, 4, 3), extreme=True)
    rows, columns = (torch.tensor(rng.integers(0, n, (5, 2))).int() for n in (4, 3))
    shares = [torch.tensor(rng.integers(0, 1025, 5)).int() for _ in range(2)]
    row_weights, column_weights = (torch.stack([s, 1024 - s], 1) for s in shares)
    multiplier = float(np.float32(2.0**-20 * 0.7))
    tables = (rows, row_weights, columns, column_weights)
    got = ops.resize_i8(x, *tables, multiplier, 11, -7, -128, 127, torch.int8)
    for n, c, y, z in np.ndindex(*got.shape):
        acc = sum(
            int(row_weights[y, i])
            * int(column_weights[z, j])
            * (int(x[n, c, rows[y, i], columns[z, j]]) - 11)
            for i in range(2)
            for j in range(2)
        )
        assert abs(acc) < 2**29
        assert int(got[n, c, y, z]) == requantized(acc, multiplier, -7, -128, 127)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pad_i8(dtype: torch.dtype) -> None:
    x = torch.arange(6).view(2, 3).to(dtype)
    got = ops.pad_i8(x, [1, -1, 0, 2], 9)
    assert got.dtype == dtype
    assert got.tolist() == [[9, 0, 1], [9, 3, 4], [9, 9, 9], [9, 9, 9]]

"""Functions of real numbers that kernels call, and what becomes of TVM's functions."""

# TVMScript spells the type of a buffer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tvm.script import tirx as T

from planish.backends.cuda.emulator import EmulatedLibrary, emulate
from planish.backends.cuda.floats import split_nests
from planish.backends.cuda.functions import FUNCTIONS
from planish.backends.cuda.source import cuda_source

# Where torch has another name, or the function is not defined everywhere.
TORCH = {
    "nearest_even": torch.round,
    "fabs": torch.abs,
    "exp10": lambda x: 10.0**x,
    "larger": torch.maximum,
    "smaller": torch.minimum,
}
AT_LEAST_1, BELOW_1 = {"acosh"}, {"asin", "acos", "atanh"}
POSITIVE = {"log", "log2", "log10", "log1p", "sqrt", "rsqrt", "pow"}
TWO = {"pow", "atan2", "fmod", "hypot", "copysign", "larger", "smaller"}
NAMES = sorted(
    {name.removeprefix("planish_") for name in FUNCTIONS.values()} | {"larger", "smaller"}
)


def run(library: EmulatedLibrary, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    library.launch(name, (1,), (32,), 0, list(arrays.values()))


@pytest.fixture(scope="module")
def library() -> EmulatedLibrary:
    text = ""
    for name in NAMES:
        given = "x[i], y[i]" if name in TWO else "x[i]"
        for real in ("float", "double"):
            text += (
                f'extern "C" __global__ void {name}_{real}({real}* x, {real}* y, {real}* z) {{\n'
                f"  int i = threadIdx.x; z[i] = planish_{name}({given});\n}}\n"
            )
    return emulate(text)


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_those_of_torch(library: EmulatedLibrary, name: str) -> None:
    random = np.random.default_rng(5)
    x, y = random.uniform(-5, 5, (2, 32))
    x[:4] = [0.5, 1.5, -2.5, -0.5]
    if name in POSITIVE:
        x = np.abs(x)
    if name in BELOW_1:
        x /= 6
    if name in AT_LEAST_1:
        x = 1 + np.abs(x)
    function = TORCH.get(name) or getattr(torch, name)
    for real, dtype, near in (("float", np.float32, 5e-7), ("double", np.float64, 1e-15)):
        arrays = {"x": x.astype(dtype), "y": y.astype(dtype), "z": np.zeros(32, dtype)}
        run(library, f"{name}_{real}", arrays)
        operands = [torch.from_numpy(arrays[key].astype(np.float64)) for key in ("x", "y")]
        want = function(*operands[: 2 if name in TWO else 1])
        np.testing.assert_allclose(arrays["z"], want.numpy(), rtol=near, atol=near)


HALF = """extern "C" __global__ void kernel(float* x, half* h, float* back, half* sum) {
  for (int i = threadIdx.x; i < 65536; i += 32) {
    back[i] = (float)h[i];
    sum[i] = (half)x[i] * (half)x[i] + h[i] - h[i] / __float2half_rn(0x1.8p+1f);
    h[i] = (half)x[i];
  }
}
"""


def test_float16_is_that_of_numpy() -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    random = np.random.default_rng(6)
    x = np.ldexp(random.uniform(-1, 1, 65536), random.integers(-26, 18, 65536)).astype(np.float32)
    # Halfway between two neighbours, and beside that.
    x[:4096] = ((every[8192:12288].astype(np.float64) + every[8193:12289]) / 2).astype(np.float32)
    x[4096:8192] = np.nextafter(x[:4096], np.float32(9))
    x[-6:] = [65519.9, 65520, -np.inf, np.nan, 2.0**-25, -0.0]
    arrays = {"x": x, "h": every.copy(), "back": np.zeros_like(x), "sum": np.zeros_like(every)}
    run(emulate(HALF), "kernel", arrays)
    with np.errstate(all="ignore"):
        halves = x.astype(np.float16)
        third = (every.astype(np.float32) / np.float32(3)).astype(np.float16)
        want = halves * halves + every - third
    np.testing.assert_array_equal(arrays["back"], every.astype(np.float32))
    np.testing.assert_array_equal(arrays["h"], halves)
    np.testing.assert_array_equal(arrays["sum"], want)


def test_constants_keep_all_their_digits() -> None:
    tenth, small, third, large, endless = numbers = (0.1, 1e-30, 2 / 3, -1e30, np.inf)

    @T.prim_func(private=True)
    def constants(
        y_data: T.handle("float64", "global"), z_data: T.handle("float32", "global")
    ) -> None:
        y = T.decl_buffer((5,), "float64", data=y_data)
        z = T.decl_buffer((1,), "float32", data=z_data)
        for i in T.parallel(1):
            y[i] = T.float64(tenth)
            y[i + 1] = T.float64(small)
            y[i + 2] = T.float64(third)
            y[i + 3] = T.float64(large)
            y[i + 4] = T.float64(endless)
            z[i] = T.float32(third)

    (nest,) = split_nests(constants)
    y, z = np.zeros(5), np.zeros(1, np.float32)
    run(emulated(nest.function), "kernel", {"y": y, "z": z})
    assert tuple(y) == numbers
    assert z[0] == np.float32(third)


def emulated(function: Any) -> EmulatedLibrary:
    return emulate(cuda_source({"kernel": function}, "sm_80")[0])


def test_nests_follow_each_other() -> None:
    """Each takes the pointers that it needs; what writes between loops stays in one thread."""

    @T.prim_func(private=True)
    def nests(
        x_data: T.handle("float32", "global"),
        y_data: T.handle("float32", "global"),
        z_data: T.handle("float32", "global"),
    ) -> None:
        x = T.decl_buffer((40,), "float32", data=x_data)
        y = T.decl_buffer((40,), "float32", data=y_data)
        z = T.decl_buffer((4,), "float32", data=z_data)
        for i in T.parallel(40):
            y[i] = x[i] + T.float32(1)
        for i in T.parallel(4):
            z[i] = T.float32(0)
            for j in T.parallel(10):
                z[i] = z[i] + y[i * 10 + j]
        for i in T.serial(4):
            for j in T.parallel(1):
                z[i] = z[i] + z[j]
        for i in T.parallel(0):
            z[i] = T.float32(9)

    found = split_nests(nests)
    assert [nest.operands for nest in found] == [(0, 1), (1, 2), (2,)]
    x, y, z = (np.arange(n, dtype=np.float32) for n in (40, 40, 4))
    for nest, arrays, block in zip(found, ([x, y], [y, z], [z]), (64, 32, 32), strict=True):
        text, signatures = cuda_source({"kernel": nest.function}, "sm_80")
        assert signatures["kernel"].block == (block, 1, 1)
        emulate(text).launch("kernel", (1,), (block,), 0, arrays)
    sums = (x + 1).reshape(4, 10).sum(1)
    assert np.array_equal(
        z, sums + 2 * sums[0] * (np.arange(4) > 0) + sums[0] * (np.arange(4) == 0)
    )


def test_what_a_gpu_lacks() -> None:
    @T.prim_func(private=True)
    def scaled(y_data: T.handle("float32", "global")) -> None:
        y = T.decl_buffer((4,), "float32", data=y_data)
        for i in T.parallel(4):
            y[i] = T.ldexp(y[i], 3)

    @T.prim_func(private=True)
    def rounded(y_data: T.handle("bfloat16", "global")) -> None:
        y = T.decl_buffer((4,), "bfloat16", data=y_data)
        for i in T.parallel(4):
            y[i] = y[3 - i]

    @T.prim_func(private=True)
    def large(y_data: T.handle("float32", "global")) -> None:
        y = T.decl_buffer((4,), "float32", data=y_data)
        for i in T.parallel(4):
            own = T.alloc_buffer((2000,), "float32")
            own[i] = y[i]
            y[i] = own[i]

    for function, said in (
        (scaled, "there is no tirx.ldexp on a GPU"),
        (rounded, "there is no bfloat16 on a GPU"),
        (large, "each thread of a GPU would need 8000 bytes"),
    ):
        with pytest.raises(NotImplementedError, match=said):
            split_nests(function)

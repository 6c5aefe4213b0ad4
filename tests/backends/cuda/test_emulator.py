"""The emulator's instructions equal NumPy's arithmetic; it finds what is wrong with a kernel."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from planish.backends.cuda import emulator
from planish.backends.cuda.emulator import EmulatedLibrary, emulate
from planish.ir import OptionError, TargetError

EXTREMES = [-(2**31), -(2**31) + 1, -1, 0, 1, 2**24 + 1, 2**31 - 1]


TYPES = {
    "int32": "int*",
    "uint32": "uint*",
    "float32": "float*",
    "uint8": "uchar*",
    "int8": "signed char*",
}


def text_of(name: str, body: str, arrays: dict[str, NDArray[Any]]) -> str:
    """A kernel whose arguments are these arrays, by name."""
    parameters = ", ".join(f"{TYPES[str(a.dtype)]} {name}" for name, a in arrays.items())
    return f'extern "C" __global__ void {name}({parameters}) {{\n{body}\n}}\n'


def launch(
    library: EmulatedLibrary, name: str, arrays: dict[str, NDArray[Any]], threads: int = 32
) -> None:
    """Run one block of a kernel; the arrays are all memory that there is."""
    memory = [(array.ctypes.data, array.nbytes) for array in arrays.values()]
    library.launch(name, (1,), (threads,), 0, list(arrays.values()), memory=memory)


def run(body: str, arrays: dict[str, NDArray[Any]], arch: str = "sm_80") -> None:
    """Run 32 threads of a kernel whose arguments are these arrays, by name."""
    launch(emulate(text_of("kernel", body, arrays), arch), "kernel", arrays)


def random_bytes(shape: tuple[int, ...], dtype: type, seed: int) -> NDArray[Any]:
    """Random bytes, a third of them extremes."""
    random, info = np.random.default_rng(seed), np.iinfo(dtype)
    values = random.integers(info.min, info.max + 1, shape)
    rare = random.random(shape)
    values[rare < 0.2], values[rare > 0.8] = info.min, info.max
    return values.astype(dtype)


def test_dot() -> None:
    x, w = random_bytes((32, 4), np.uint8, 0), random_bytes((32, 4), np.int8, 1)
    totals = np.resize(EXTREMES, 32).astype(np.int32)
    want = totals + (x.astype(np.int64) * w).sum(1)
    words = {"y": totals, "x": x.view(np.uint32).ravel(), "w": w.view(np.uint32).ravel()}
    run("int i = threadIdx.x; y[i] = planish_dot(y[i], x[i], w[i]);", words, arch="sm_61")
    assert np.array_equal(totals, want.astype(np.int32))


MULTIPLY = """
  __shared__ __align__(16) uchar memory[16 * 32 + 8 * 32 * 2];
  for (int i = threadIdx.x; i < 16 * 32; i += 32) memory[i] = x[i];
  for (int i = threadIdx.x; i < 16 * 32; i += 32) memory[512 + i] = w[i];
  __syncthreads();
  const int lane = threadIdx.x;
  uint a[4], b[4];
  planish_load_matrices(a, memory + lane % 16 * 32 + lane / 16 * 16);
  planish_load_matrices(b, memory + 512 + (lane / 16 * 8 + lane % 8) * 32 + lane / 8 % 2 * 16);
  for (int n = 0; n < 2; ++n) {
    int sums[4];
    const int row = lane / 4, column = n * 8 + lane % 4 * 2;
    for (int i = 0; i < 4; ++i) sums[i] = y[(row + i / 2 * 8) * 16 + column + i % 2];
    planish_mma(sums, a, b + 2 * n);
    for (int i = 0; i < 4; ++i) y[(row + i / 2 * 8) * 16 + column + i % 2] = sums[i];
  }
"""


@pytest.mark.parametrize("arch", ["sm_75", "sm_80"])
def test_matrix_product(arch: str) -> None:
    x, w = random_bytes((16, 32), np.uint8, 2), random_bytes((16, 32), np.int8, 3)
    totals = np.resize(EXTREMES, (16, 16)).astype(np.int32)
    want = totals + x.astype(np.int64) @ w.T.astype(np.int64)
    run(MULTIPLY, {"x": x, "w": w, "y": totals}, arch=arch)
    assert np.array_equal(totals, want.astype(np.int32))


def test_rounding() -> None:
    halves = [0.5, 1.5, 2.5, -0.5, -1.5, 2**22 + 0.5, 1e-30, -7.49999]
    x = np.resize(halves, 32).astype(np.float32)
    whole, nearest = np.zeros(32, np.int32), np.zeros(32, np.float32)
    arrays = {"x": x, "whole": whole, "nearest": nearest}
    run(
        "int i = threadIdx.x; whole[i] = planish_nearest(x[i]); nearest[i] = planish_round(x[i]);",
        arrays,
    )
    assert np.array_equal(nearest, np.rint(x))
    assert np.array_equal(whole, np.rint(x).astype(np.int32))


def test_root_and_quotient() -> None:
    random = np.random.default_rng(4)
    x, y = (random.random(32).astype(np.float32) * 1e6 for _ in range(2))
    root, quotient = np.zeros_like(x), np.zeros_like(x)
    arrays = {"x": x, "y": y, "root": root, "quotient": quotient}
    run(
        "int i = threadIdx.x; root[i] = planish_sqrt(x[i]);"
        "quotient[i] = planish_divide(x[i], y[i]);",
        arrays,
    )
    assert np.array_equal(root, np.sqrt(x))
    assert np.array_equal(quotient, x / y)


def test_requantize() -> None:
    totals = np.resize(EXTREMES, 32).astype(np.int32)
    multiplier = np.random.default_rng(5).random(32).astype(np.float32) * 1e-6
    multiplier[:8] = [1.0, 3e8, 2.0**-24, 0.5, 0.25, 1e-30, 1.5, 0.1]
    got = np.zeros(32, np.int32)
    arrays = {"total": totals, "m": multiplier, "y": got}
    run("int i = threadIdx.x; y[i] = planish_requantize(total[i], m[i], -100.f, 155.f);", arrays)
    want = np.rint(totals.astype(np.float32) * multiplier).clip(-100, 155)
    assert np.array_equal(got, want)


def test_bytes() -> None:
    x, y = random_bytes((32, 4), np.uint8, 6), random_bytes((32, 4), np.uint8, 7)
    low, high = x.view(np.uint32).ravel(), y.view(np.uint32).ravel()
    both = np.concatenate([x, y], 1)
    packed, chosen = np.zeros(32, np.uint32), np.zeros(32, np.uint32)
    arrays = {"low": low, "high": high, "packed": packed, "chosen": chosen}
    run(
        "int i = threadIdx.x; chosen[i] = planish_bytes(low[i], high[i], 0x7160);\n"
        "packed[i] = planish_pack(planish_byte(low[i], 3), planish_byte(low[i], 2),"
        " planish_byte(low[i], 1), planish_byte(low[i], 0));",
        arrays,
    )
    assert np.array_equal(packed.view(np.uint8).reshape(32, 4), x[:, ::-1])
    assert np.array_equal(chosen.view(np.uint8).reshape(32, 4), both[:, [0, 6, 1, 7]])


COPIES = {
    "copy": """
  planish_copy_SIZE(memory + 16 * threadIdx.x, x + (16 + SIZE) * threadIdx.x);
  planish_commit();
  planish_wait(0);""",
    "fetch": """
  uint parts[4];
  planish_fetch_SIZE(parts, x + (16 + SIZE) * threadIdx.x);
  planish_put_16(memory + 16 * threadIdx.x, parts[0], parts[1], parts[2], parts[3]);""",
}


def test_copies() -> None:
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    source = ""
    for (way, text), size in product(COPIES.items(), (1, 4, 8, 16)):
        # Unaligned bytes are read as the words around them.
        x = random_bytes((32 * (16 + size) + 4,), np.uint8, size)
        body = f"""
  __shared__ __align__(16) uchar memory[512];{text.replace("SIZE", str(size))}
  for (int i = 0; i < 16; ++i) y[16 * threadIdx.x + i] = memory[16 * threadIdx.x + i];"""
        name = f"{way}_{size}"
        arrays[name] = {"x": x, "y": np.zeros(512, np.uint8)}
        source += text_of(name, body, arrays[name])
    library = emulate(source)
    for name, case in arrays.items():
        launch(library, name, case)
        want = case["x"][:-4].reshape(32, -1)[:, :16]
        assert np.array_equal(case["y"].reshape(32, 16), want), name


SHIFT = """
  __shared__ uint memory[64];
  memory[threadIdx.x] = y[threadIdx.x];
  BARRIER
  y[threadIdx.x] = memory[(threadIdx.x + 1) % 64];"""


@pytest.mark.parametrize("barrier", ["__syncthreads();", ""])
def test_a_missing_barrier_shows_in_one_order_of_threads(barrier: str) -> None:
    y = np.arange(64, dtype=np.uint32)
    library = emulate(text_of("kernel", SHIFT.replace("BARRIER", barrier), {"y": y}))
    right: list[bool] = []
    for backwards in (False, True):
        y = np.arange(64, dtype=np.uint32)
        library.launch("kernel", (1,), (64,), 0, [y], backwards=backwards)
        right.append(np.array_equal(y, np.roll(np.arange(64), -1)))
    assert all(right) == bool(barrier)


FAULTS = {
    "threads end before a barrier": "if (threadIdx.x < 16) planish_sync();",
    "threads wait for others of their warp": "if (threadIdx.x < 16) __syncwarp();",
    "different things": """
  int sums[4] = {};
  uint parts[4] = {};
  if (threadIdx.x < 16) planish_mma(sums, parts, parts); else __syncwarp();""",
    "no multiple of": "planish_store_4((uchar*)y + 1, 7); planish_sync();",
    "an index is outside": "__shared__ uint memory[8]; memory[threadIdx.x + y[0]] = 1;",
    "outside of all memory": "planish_load_4(y + 64);",
}


def test_faults_are_found() -> None:
    y = np.zeros(80, np.uint32)
    names = {what: f"kernel{i}" for i, what in enumerate(FAULTS)}
    library = emulate("".join(text_of(names[w], body, {"y": y}) for w, body in FAULTS.items()))
    for what, name in names.items():
        with pytest.raises(TargetError, match=what):
            launch(library, name, {"y": y[:64]})


def test_what_is_not_waited_for_is_wrong() -> None:
    x, y = np.arange(128, dtype=np.uint32), np.zeros(128, np.uint32)
    body = """
  __shared__ __align__(16) uint memory[128];
  planish_copy_16(memory + 4 * threadIdx.x, x + 4 * threadIdx.x);
  planish_commit();
  WAIT
  for (int i = 0; i < 4; ++i) y[4 * threadIdx.x + i] = memory[4 * threadIdx.x + i];
"""
    run(body.replace("WAIT", "planish_wait(1);"), {"x": x, "y": y})
    assert not y.any()
    run(body.replace("WAIT", "planish_wait(0);"), {"x": x, "y": y})
    assert np.array_equal(y, x)


def test_blocks_and_threads_of_three_axes() -> None:
    source = """extern "C" __global__ void count(int* y) {
  int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  y[block * 24 + thread] += block * 100 + thread;
}
"""
    y = np.zeros((30, 24), np.int32)
    emulate(source).launch("count", (5, 3, 2), (4, 3, 2), 0, [y])
    assert np.array_equal(y, np.arange(30)[:, None] * 100 + np.arange(24))


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator, "which", lambda _: None)
    with pytest.raises(TargetError, match=r"no g\+\+.*install"):
        emulate("")


def test_text_that_does_not_compile() -> None:
    with pytest.raises(TargetError, match="planish_unknown"):
        emulate('extern "C" __global__ void kernel(int* y) {\n  planish_unknown(y);\n}\n')


def test_unknown_kernels_and_dynamic_memory() -> None:
    library = emulate('extern "C" __global__ void kernel(int* y) {\n  y[0] = 1;\n}\n')
    with pytest.raises(TargetError, match="no kernel 'other'"):
        library.launch("other", (1,), (1,), 0, [])
    with pytest.raises(TargetError, match="dynamic shared memory"):
        library.launch("kernel", (1,), (1,), 16, [np.zeros(1, np.int32)])


def test_both_sides_have_the_same_device_functions() -> None:
    folder = Path(emulator.__file__).parent
    theirs, ours = (
        set(re.findall(r"\b(planish_\w+)\(", (folder / name).read_text()))
        for name in ("device.h", "emulated.h")
    )
    # How an address of shared memory is spelled in PTX.
    assert theirs - {"planish_shared"} <= ours


def test_a_wrong_launch_is_an_error() -> None:
    y = np.zeros((8, 8), np.int32)
    library = emulate(text_of("kernel", "y[threadIdx.x] = 1;", {"y": y}))
    for grid, block, arguments, message in (
        ((1,), (32,), [], "takes 1 arguments, 0 are given"),
        ((1,), (32,), [y, y], "takes 1 arguments, 2 are given"),
        ((-1,), (32,), [y], r"with the grid \[-1\]"),
        ((1, 65536), (32,), [y], r"with the grid \[1, 65536\]"),
        ((1, 1, 1, 1), (32,), [y], r"with the grid \[1, 1, 1, 1\]"),
        ((1,), (5000,), [y], r"with the block \[5000\]; give .* 1024 threads in all"),
        ((1,), (64, 32), [y], r"with the block \[64, 32\]"),
        ((1,), (), [y], r"with the block \[\]"),
        ((1,), (32,), [y[:, ::2]], "is not contiguous"),
    ):
        with pytest.raises(TargetError, match=message):
            library.launch("kernel", grid, block, 0, arguments)
    assert not y.any()


def test_an_unknown_architecture() -> None:
    with pytest.raises(OptionError, match=r"no GPU architecture 'abc'; write it as in 'sm_80'"):
        emulate("", "abc")

"""Schedules for processors that may not be here: the same loops on plain arithmetic are exact."""

# TVMScript spells the type of a buffer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from typing import Any

import numpy as np
import pytest
import torch
import tvm
from tvm.script import tirx as T

from planish.backends import build, find_target
from planish.backends.stand_in import plain_module, stand_in
from planish.backends.targets import BEST_FIRST
from planish.ir import Graph, TargetError

planish = torch.ops.planish
PROCESSORS = [name for name in BEST_FIRST if find_target(name).capability is None]


def random_layers(builder: Any, seed: int) -> Graph:
    """Layers side by side: of every kind, shapes that fill no vector, extremes of every dtype."""
    b = builder(seed)
    depth, out = b.integer(16, 40), b.integer(33, 50)
    x = b.input(torch.uint8, (1, depth, 11, 10))
    outputs = [b.conv(x, (out, depth, 3, 3), padding=(1,) * 4, x_zero=77)]
    for groups in (1, 3):
        depth, out, size = b.integer(1, 20), b.integer(1, 70), b.integer(3, 9)
        kernel = (b.integer(1, 3), b.integer(1, 3))
        kind = torch.uint8 if b.integer(0, 1) else torch.int8
        x = b.input(kind, (b.integer(1, 2), depth * groups, size, size + 1))
        outputs.append(
            b.conv(
                x,
                (out * groups, depth, *kernel),
                stride=(b.integer(1, 2), b.integer(1, 2)),
                padding=[b.integer(0, 2) for _ in range(4)],
                dilation=(b.integer(1, 2), groups // 3 + 1),
                groups=groups,
                x_zero=b.integer(torch.iinfo(kind).min, torch.iinfo(kind).max),
            )
        )
    channels = b.integer(8, 70)
    x = b.input(torch.uint8, (2, channels, 9, 8))
    outputs.append(b.conv(x, (channels, 1, 3, 3), padding=(1,) * 4, groups=channels, x_zero=128))
    left = b.input(torch.uint8, (2, b.integer(1, 9), 33))
    right = b.input(torch.int8, (2, 33, b.integer(1, 40)))
    outputs.append(
        b.call(planish.matmul_i8.default, left, right, 0.002, 7, -3, 128, 0, 255, torch.uint8)
    )
    return b.finish(*outputs)


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_schedules_arithmetic_is_exact(builder: Any, name: str) -> None:
    graph = random_layers(builder, PROCESSORS.index(name))
    source = builder(100)
    inputs = [source.values(spec.dtype, spec.shape) for spec in graph.inputs]
    artifact = build(graph, stand_in(find_target(name)))
    for want, have in zip(graph(*inputs), artifact(*[x.numpy() for x in inputs]), strict=True):
        assert np.array_equal(want.numpy(), have)


def test_a_gpu_has_no_stand_in() -> None:
    with pytest.raises(TargetError, match=r"'cuda-sm80' is a GPU.*EmulatedNetwork"):
        stand_in(find_target("cuda-sm80"))


def test_a_stand_in_runs_the_same_kernels(builder: Any) -> None:
    b, target = builder(0), find_target("x86-64-v4")
    graph = b.finish(b.conv(b.input(torch.uint8, (1, 9, 5, 6)), (33, 9, 3, 3), x_zero=9))
    real, plain = build(graph, target), build(graph, stand_in(target))
    assert plain.manifest["steps"] == real.manifest["steps"]
    assert plain.manifest["recipes"] == real.manifest["recipes"]
    assert plain.manifest["target"]["cpu_flags"] == sorted(find_target("x86-64-v3").cpu_flags)


# Name, dtype of both operands, dtype and number of results, and of the sum that they are added to.
INTRINSICS = [
    ("avx2.pmadd.wd", ("int16", "int16"), "int32", 8, False),
    ("avx2.pmadd.ub.sw", ("uint8", "int8"), "int16", 16, False),
    ("avx2.psign.b", ("int8", "int8"), "int8", 32, False),
    ("avx2.packssdw", ("int32", "int32"), "int16", 16, False),
    ("avx2.packusdw", ("int32", "int32"), "uint16", 16, False),
    ("avx2.packsswb", ("int16", "int16"), "int8", 32, False),
    ("avx2.packuswb", ("int16", "int16"), "uint8", 32, False),
    ("sse2.packssdw.128", ("int32", "int32"), "int16", 8, False),
    ("avx512.vpdpbusd.256", ("uint8", "int8"), "int32", 8, True),
    ("avx512.vpdpwssd.256", ("int16", "int16"), "int32", 8, True),
]


def one_instruction(
    name: str, operands: tuple[str, str], dtype: str, lanes: int, adds: bool
) -> tuple[Any, int]:
    """Return a module that computes `z = instruction(z, x, y)`, and the operands' lanes."""
    bits = 128 if name.endswith("128") else 256
    count = bits // np.dtype(operands[0]).itemsize // 8
    left, right = operands

    @T.prim_func
    def main(
        x: T.Buffer((count,), left), y: T.Buffer((count,), right), z: T.Buffer((lanes,), dtype)
    ) -> None:
        if adds:
            z[T.ramp(0, 1, lanes)] = T.call_llvm_pure_intrin(
                f"{dtype}x{lanes}",
                f"llvm.x86.{name}",
                z[T.ramp(0, 1, lanes)],
                x[T.ramp(0, 1, count)],
                y[T.ramp(0, 1, count)],
            )
        else:
            z[T.ramp(0, 1, lanes)] = T.call_llvm_pure_intrin(
                f"{dtype}x{lanes}",
                f"llvm.x86.{name}",
                x[T.ramp(0, 1, count)],
                y[T.ramp(0, 1, count)],
            )

    return tvm.IRModule({"main": main}), count


def run(module: Any, target: Any, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    arrays = [tvm.runtime.tensor(array) for array in (x, y, z)]
    tvm.compile(module, target=tvm.target.Target(target.tvm_target))["main"](*arrays)
    return arrays[2].numpy()


@pytest.mark.isa("avx2")
@pytest.mark.parametrize("case", INTRINSICS, ids=lambda case: case[0])
def test_a_spelling_is_the_instruction(case: Any) -> None:
    name, operands, dtype, lanes, adds = case
    target = find_target("x86-avx512vnni" if adds else "x86-64-v3")
    if not build_runs(target):
        pytest.skip("this processor has no AVX-512 with VNNI")
    module, count = one_instruction(*case)
    random = np.random.default_rng(5)
    for _ in range(20):
        x, y = (extremes(random, each, count) for each in operands)
        z = extremes(random, dtype, lanes)
        plain = run(plain_module(module), stand_in(target), x, y, z)
        assert np.array_equal(plain, run(module, target, x, y, z)), name


def build_runs(target: Any) -> bool:
    from planish.backends.cpu import cpu_flags

    return set(target.cpu_flags) <= cpu_flags()


def extremes(random: np.random.Generator, dtype: str, count: int) -> np.ndarray:
    """Random values, a third of them the dtype's extremes or near zero."""
    info = np.iinfo(dtype)
    values = random.integers(info.min, info.max, count, endpoint=True)
    special = random.choice([info.min, info.max, 0, 1, max(-1, info.min)], count)
    return np.where(random.random(count) < 0.3, special, values).astype(dtype)


def test_an_intrinsic_without_a_spelling() -> None:
    module, _ = one_instruction("avx2.pmulh.w", ("int16", "int16"), "int16", 16, False)
    with pytest.raises(TargetError, match=r"no plain spelling of llvm\.x86\.avx2\.pmulh\.w"):
        plain_module(module)

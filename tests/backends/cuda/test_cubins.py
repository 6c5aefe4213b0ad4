"""Every kernel family compiles for every GPU, spills nothing, and multiplies as it should."""

from functools import cache
from typing import Any

import pytest
import torch

from planish.backends import find_target
from planish.backends.builder import fill_plan
from planish.backends.cuda.disassembly import instructions
from planish.backends.cuda.nvrtc import Cubin, compile_cubin
from planish.backends.cuda.program import Program, write_program
from planish.backends.cuda.source import prelude
from planish.backends.plan import Plan
from planish.ir import Graph, TargetError

pytest.importorskip("nvidia.cuda_nvrtc", reason="nvidia-cuda-nvrtc-cu12 is not installed")
planish, aten = torch.ops.planish, torch.ops.aten
TARGETS = ("cuda-sm61", "cuda-sm75", "cuda-sm80", "cuda-sm90")
FAMILIES = {
    "cuda-dense",
    "cuda-depthwise",
    "cuda-matmul",
    "cuda-softmax",
    "cuda-layer-norm",
    "max-pool",
    "average-pool",
    "mean",
    "two-operands",
    "map",
    "gather",
    "take",
    "cuda-fill-halo",
    "resize",
}
UINT8 = (0, 255, torch.uint8)


@cache
def graph_of_all(builder: Any) -> Graph:
    """One of everything, small."""
    b = builder(2)
    image = b.input(torch.float32, (1, 3, 16, 16))
    x = b.call(planish.quantize.default, image, 0.02, 7, *UINT8)
    x = b.conv(x, (16, 3, 3, 3), padding=(1, 1, 1, 1), x_zero=7)
    x = b.conv(x, (16, 1, 3, 3), padding=(1, 1, 1, 1), groups=16, x_zero=5)
    pooled = b.call(planish.max_pool2d_i8.default, x, [2, 2], [2, 2], [0] * 4, [1, 1], False)
    spread = b.stored(torch.full((8, 8), 0.2))
    window = ([2, 2], [2, 2], [0] * 4, False, 3, 5, *UINT8)
    mean = b.call(planish.avg_pool2d_i8.default, x, spread, *window)
    x = b.call(planish.add_i8.default, pooled, mean, 5, 5, 9000, 8000, 14, 3, *UINT8)
    rows = b.stored(torch.tensor([[0, 1], [2, 3]], dtype=torch.int32))
    weights = b.stored(torch.full((2, 2), 512, dtype=torch.int32))
    axes = (rows, weights, rows, weights)
    small = b.call(planish.resize_i8.default, x, *axes, 2.0**-20, 3, 5, *UINT8)
    flipped = b.call(aten.flip.default, x, [1, 3])
    tokens = b.call(aten.view.default, x, [1, 64, 16])
    order = torch.randperm(64, generator=b.random)
    shuffled = b.call(aten.index_select.default, tokens, 1, b.stored(order))
    gain, offset = b.stored(torch.rand(16) * 9000), b.stored(b.integers(-99, 99, (16,)).int())
    normal = b.call(planish.layer_norm_i8.default, tokens, gain, offset, 1, 9, 3, 128, *UINT8)
    across = b.call(aten.transpose.int, normal, 1, 2)
    zeros = (128, 128, 100)
    scores = b.call(planish.matmul_i8.default, normal, across, 1e-3, *zeros, *UINT8)
    table = b.stored((torch.exp(-0.03 * torch.arange(256)) * 2**20).round().int())
    attention = b.call(planish.softmax_i8.default, scores, table, -1, 2000.0, 0, *UINT8)
    summed = b.call(planish.mean_i8.default, attention, [1], False, 0.1, 0, 0, *UINT8)
    numbers = b.input(torch.int64, (5,))
    words = b.call(aten.embedding.default, b.stored(b.values(torch.uint8, (9, 8))), numbers)
    return b.finish(small, flipped, shuffled, summed, words)


@cache
def compiled(builder: Any, target: str, arch: str) -> tuple[Program, Cubin]:
    plan = Plan(find_target(target), 1)
    fill_plan(graph_of_all(builder), plan)
    program = write_program(plan)
    assert {step.kernel.family for step in plan.steps} == FAMILIES
    return program, compile_cubin(prelude() + program.text, arch)


@pytest.mark.parametrize("target", TARGETS)
def test_every_family_compiles_and_spills_nothing(builder: Any, target: str) -> None:
    program, cubin = compiled(builder, target, find_target(target).cpu)
    assert set(cubin.resources) == set(program.names)
    for name, taken in cubin.resources.items():
        assert (taken.spilled, taken.stack) == (0, 0), name
        assert 0 < taken.registers <= 255
        assert taken.shared <= 48 << 10


# NVIDIA's disassembler no longer reads Pascal: its text is looked at as compiled for Turing.
@pytest.mark.parametrize(
    ("target", "arch", "dense"),
    [
        ("cuda-sm61", "sm_75", "IDP.4A.U8.S8"),
        ("cuda-sm75", "sm_75", "IMMA.8816.U8.S8"),
        ("cuda-sm80", "sm_80", "IMMA.16832.U8.S8"),
        ("cuda-sm90", "sm_90", "IMMA.16832.U8.S8"),
    ],
)
def test_layers_multiply_four_bytes_at_once(
    builder: Any, target: str, arch: str, dense: str
) -> None:
    _, cubin = compiled(builder, target, arch)
    try:
        found = instructions(cubin.content)
    except TargetError as error:
        pytest.skip(str(error))
    assert set(found) == set(cubin.resources)
    wanted = {"cuda-dense": dense, "cuda-depthwise": "IDP.4A.U8.S8", "cuda-matmul": "IDP.4A"}
    seen: set[str] = set()
    for name, code in found.items():
        family = name.rpartition("_")[0].replace("_", "-")
        if family not in wanted:
            continue
        seen.add(family)
        assert sum(n for text, n in code.items() if text.startswith(wanted[family])) >= 4, name
        # Divisions and roots, which no layer has, are made of these; the contract has none.
        assert not [text for text in code if text.startswith("FFMA")], name
    assert seen == set(wanted)


@pytest.mark.parametrize("target", ["cuda-sm61", "cuda-sm90"])
def test_equal_texts_give_equal_bytes(builder: Any, target: str) -> None:
    program, cubin = compiled(builder, target, find_target(target).cpu)
    again = compile_cubin(prelude() + program.text, find_target(target).cpu)
    assert again.content == cubin.content

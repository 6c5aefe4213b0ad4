"""Float operators on a GPU, emulated: as torch has them, beside integers, and as machine code."""

import re
from collections.abc import Sequence
from functools import cache, partialmethod
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import planish as compiler
from planish import passes
from planish.backends import Reference, build
from planish.backends.cuda import functions
from planish.backends.cuda.emulated import EmulatedNetwork
from planish.backends.cuda.emulator import EmulatedLibrary
from planish.backends.cuda.nvrtc import compile_cubin
from planish.backends.cuda.source import prelude
from planish.cli.summary import summarize
from planish.ir import Graph, Level, OperatorError
from tests.backends.test_float import float_graph, mixed_graph
from tests.backends.test_float_operators import GROUPS, Samples
from tests.cuda import running
from tests.cuda.making import write

planish, aten = torch.ops.planish, torch.ops.aten
U8 = torch.uint8
ARCHITECTURES = ("sm_61", "sm_75", "sm_80", "sm_90")
RTOL, ATOL = 1e-5, 1e-6


def assert_close(got: Sequence[Any], wanted: Sequence[Any]) -> None:
    for have, want in zip(got, wanted, strict=True):
        assert have.dtype == want.dtype
        np.testing.assert_allclose(have, want, rtol=RTOL, atol=ATOL)


def assert_nearly(got: Sequence[Any], wanted: Sequence[Any], step: float) -> None:
    """Quantizing a float result takes some values to the other side of a rounding step."""
    for have, want in zip(got, wanted, strict=True):
        assert have.dtype == want.dtype
        assert np.isclose(have, want, RTOL, ATOL).mean() > 0.97
        if have.dtype == np.float32:
            np.testing.assert_allclose(have, want, atol=2.5 * step)


@cache
def emulated(builder: Any, group: str) -> tuple[Graph, Any, EmulatedNetwork]:
    """A group of sample operators as one network, and inputs for it."""
    samples = Samples(builder)
    made = [make(samples) for found in GROUPS[group].values() for make in found]
    graph = samples.builder.finish(*made)
    return graph, samples.values, EmulatedNetwork(graph, "cuda-sm80")


@pytest.mark.parametrize("group", GROUPS)
def test_float_operators_equal_torch(
    builder: Any, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, values, network = emulated(builder, group)
    got = network(*[value.numpy() for value in values])
    assert_close(got, [want.numpy() for want in graph(*values)])
    # The other order of threads shows one that reads what another of its launch writes.
    backwards = partialmethod(EmulatedLibrary.launch, backwards=True)
    monkeypatch.setattr(EmulatedLibrary, "launch", backwards)
    for have, same in zip(network(*[value.numpy() for value in values]), got, strict=True):
        np.testing.assert_array_equal(have, same)


@pytest.mark.parametrize("group", GROUPS)
def test_float_operators_compile(builder: Any, group: str) -> None:
    pytest.importorskip("nvidia.cuda_nvrtc", reason="nvidia-cuda-nvrtc-cu12 is not installed")
    _, _, network = emulated(builder, group)
    for arch in ARCHITECTURES:
        cubin = compile_cubin(prelude() + network.program.text, arch)
        assert set(cubin.resources) == set(network.program.names)
        for name, taken in cubin.resources.items():
            assert taken.spilled == 0, (name, arch)


def long_sums(builder: Any) -> Graph:
    """Few sums of many terms, of numbers that nothing divides, too."""
    b = builder(1, Level.CANONICAL)
    x, image = b.input(torch.float32, (2, 12, 640)), b.input(torch.float32, (1, 4, 40, 36))
    line = b.input(torch.float32, (1, 1031))
    weight = b.stored(torch.randn(9, 640, generator=b.random))
    return b.finish(
        b.call(aten.softmax.int, x, -1),
        b.call(aten.layer_norm.default, x, [640]),
        b.call(aten.group_norm.default, image, 2),
        b.call(aten.mean.dim, image, [2, 3]),
        b.call(aten.mean.dim, image, [0, 1, 2, 3]),
        b.call(aten.amax.default, image, [2, 3]),
        b.call(aten.argmax.default, x, -1),
        b.call(aten.argmin.default, image),
        b.call(aten.logsumexp.default, x, [-1]),
        b.call(aten.linear.default, x, weight),
        b.call(aten.sum.dim_IntList, line, [1]),
    )


def test_long_sums_are_cut_into_parts(builder: Any) -> None:
    graph = long_sums(builder)
    sizes = [[size or 1 for size in spec.shape] for spec in graph.inputs]
    values = [torch.rand(shape, generator=torch.Generator().manual_seed(2)) for shape in sizes]
    network = EmulatedNetwork(graph, "cuda-sm80")
    for have, want in zip(network(*[v.numpy() for v in values]), graph(*values), strict=True):
        np.testing.assert_allclose(have, want.numpy(), rtol=1e-4, atol=1e-5)
    # The last sum, of a prime number of terms, stays whole.
    assert sorted(terms_of_a_thread(network.program.text))[-2:] == [240, 1031]


@pytest.mark.sweep
@pytest.mark.parametrize("terms", [1, 2, 17, 511, 512, 513, 1024, 1031, 5760])
@pytest.mark.parametrize("lines", [1, 3, 100, 4095, 4096])
def test_sums_of_every_length(builder: Any, lines: int, terms: int) -> None:
    b = builder(1, Level.CANONICAL)
    x = b.input(torch.float32, (lines, terms))
    weight = b.stored(torch.randn(1, terms, generator=b.random))
    graph = b.finish(
        b.call(aten.softmax.int, x, -1),
        b.call(aten.layer_norm.default, x, [terms]),
        b.call(aten.mean.dim, x, [0, 1]),
        b.call(aten.sum.dim_IntList, x, [0]),
        b.call(aten.amax.default, x, [1]),
        b.call(aten.argmax.default, x, 1),
        b.call(aten.logsumexp.default, x, [1]),
        b.call(aten.linear.default, x, weight),
        b.call(aten.prod.dim_int, b.call(aten.cos.default, x), 1),
    )
    values = torch.rand(lines, terms, generator=torch.Generator().manual_seed(lines))
    for have, want in zip(
        EmulatedNetwork(graph, "cuda-sm80")(values.numpy()), graph(values), strict=True
    ):
        np.testing.assert_allclose(have, want.numpy(), rtol=1e-4, atol=1e-4)


def terms_of_a_thread(text: str) -> list[int]:
    """How often the loops of each kernel's thread turn, at most."""
    kernels = text.split('extern "C"')[1:]
    counts = [
        re.findall(r"for \(\w+ \w+ = [^;]*; \w+ < (?:\(int64_t\))?(\d+);", k) for k in kernels
    ]
    return [prod(map(int, found)) for found in counts]


def several_islands(builder: Any, batch: int) -> Graph:
    """Islands at the input, between integers and at both outputs."""
    b = builder(4)
    x = b.input(torch.float32, (batch, 3, 8, 8))
    q = b.call(planish.quantize.default, b.call(aten.sigmoid.default, x), 1 / 255, 0, 0, 255, U8)
    y = b.conv(q, (16, 3, 3, 3), padding=(1, 1, 1, 1), x_zero=0)
    real = b.call(planish.dequantize.default, y, 0.02, 4)
    wide = b.call(aten.upsample_bilinear2d.default, real, [13, 11], False)
    wide = b.call(aten.cat.default, [wide, b.call(aten.sin.default, wide)], 1)
    q = b.call(planish.quantize.default, wide, 0.02, 9, 0, 255, U8)
    z = b.call(planish.dequantize.default, b.conv(q, (5, 32, 3, 3), x_zero=9), 0.1, 4)
    return b.finish(b.call(aten.log_softmax.int, z, 1), b.call(aten.argmax.default, z, 1), z)


@pytest.mark.parametrize(("target", "batch"), [("cuda-sm61", 1), ("cuda-sm90", 3)])
def test_several_islands(builder: Any, target: str, batch: int) -> None:
    graph = several_islands(builder, batch)
    x = np.random.default_rng(0).normal(size=(batch, 3, 8, 8)).astype(np.float32)
    assert_nearly(EmulatedNetwork(graph, target)(x), Reference(graph)(x), step=0.1)


@pytest.mark.parametrize("make", [mixed_graph, float_graph])
def test_networks_with_float_results(builder: Any, make: Any) -> None:
    graph = make(builder)
    x = np.random.default_rng(0).normal(size=graph.inputs[0].shape).astype(np.float32)
    assert_close(EmulatedNetwork(graph, "cuda-sm75")(x), Reference(graph)(x))


class Detector(nn.Module):
    """Convolutions in int8, and what is done with their results in float."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = F.relu(self.first(torch.log1p(x)))
        y = y + F.mish(self.second(y)).cumsum(2) / 8
        tokens = self.norm(y.flatten(2).transpose(1, 2))
        scores = self.head(tokens)
        best = torch.gather(scores, 1, scores.argmax(1, keepdim=True))
        return best, scores.log_softmax(-1)


def test_a_quantized_model_with_islands() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16)
    graph = compiler.capture(Detector().eval(), images[:2])
    quantized = compiler.Pipeline([passes.InsertQDQ()]).run(graph, [images]).graph
    foreseen = summarize(quantized, "cuda-sm80")["fallbacks"]
    graph = passes.LowerToInteger().run(quantized, passes.Context()).graph.fix_batch(2)
    x = images[:2].numpy()
    artifact = build(graph, "x86-64-v3")
    assert_close(EmulatedNetwork(graph, "cuda-sm80")(x), artifact(x))
    # What `planish inspect` says is what is compiled.
    kept = artifact.coverage["fallbacks"]
    assert [entry["operator"] for entry in foreseen] == [entry["operator"] for entry in kept]
    assert {"cumsum", "gather", "log_softmax"} <= {entry["operator"] for entry in kept}


def test_equal_graphs_give_equal_bytes(builder: Any) -> None:
    pytest.importorskip("nvidia.cuda_nvrtc", reason="nvidia-cuda-nvrtc-cu12 is not installed")
    first, second = (build(several_islands(builder, 1), "cuda-sm80") for _ in range(2))
    assert first.content == second.content
    assert {entry["operator"] for entry in first.coverage["fallbacks"]} >= {"sin", "cat"}


def test_what_a_gpu_can_not_compute_is_named(builder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    b = builder(1, Level.CANONICAL)
    x = b.call(aten.exp.default, b.input(torch.float32, (2, 8)))
    graph = b.finish(b.call(aten.sin.default, x))
    monkeypatch.delitem(functions.FUNCTIONS, "tirx.sin")
    with pytest.raises(OperatorError) as error:
        EmulatedNetwork(graph, "cuda-sm80")
    assert str(error.value) == (
        "sin can't be compiled as a float operator: there is no tirx.sin on a GPU; at sin_default "
        "(aten.sin.default); rewrite the model without it, or run that part outside of planish, or "
        "compile for a processor"
    )


class Exponential:
    """Stands for a loaded artifact whose results are off by a factor."""

    inputs = ("x",)

    def __init__(self, factor: float) -> None:
        self.factor = np.float32(factor)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (np.exp(x) * self.factor,)


def test_floats_that_another_machine_prepared(
    builder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nvidia.cuda_nvrtc", reason="nvidia-cuda-nvrtc-cu12 is not installed")
    b = builder(3, Level.CANONICAL)
    graph = b.finish(b.call(aten.exp.default, b.input(torch.float32, (2, 8))))
    x = np.random.default_rng(0).random((2, 8), dtype=np.float32)
    write(tmp_path / "case.planish", graph, "cuda-sm80", [[x]])
    assert build(graph, "cuda-sm80").content == (tmp_path / "case.planish").read_bytes()
    for factor, status in ((1.0, 0), (1 + 5e-6, 0), (1 + 1e-4, 1)):
        monkeypatch.setattr(running, "load", lambda *_, f=factor: Exponential(f))
        assert running.run(tmp_path) == status

"""Artifacts for GPUs: what they hold, and what they say where no GPU is."""

import ctypes
import ctypes.util
import importlib.util
import json
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planish import Pipeline, capture
from planish.backends import Artifact, Reference, build, find_target, matching
from planish.backends.cuda import nvrtc
from planish.backends.cuda.emulated import EmulatedNetwork
from planish.backends.cuda.launch import Launch
from planish.backends.profiling import profile
from planish.backends.target import describe_target
from planish.ir import (
    ArtifactError,
    DataError,
    Graph,
    ModelError,
    OptionError,
    TargetError,
)
from planish.passes import InsertQDQ
from planish.tuning import tune
from tests.backends.cuda.artifacts import image


@pytest.fixture(scope="module")
def emulated(graph: Graph) -> EmulatedNetwork:
    return EmulatedNetwork(graph, "cuda-sm80")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "compute_capability", lambda: None)


def parts(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_an_artifact_holds_cubin_and_launches(artifact: Artifact) -> None:
    found = parts(artifact.content)
    assert artifact.targets == ["cuda-sm80", "cuda-sm61", "x86-64-v3"]
    for name in ("cuda-sm80", "cuda-sm61"):
        cubin, plan = found[f"{name}/library.cubin"], json.loads(found[f"{name}/plan.json"])
        assert cubin.startswith(b"\x7fELF")
        symbols = {launch[0] for launch in plan["setup"] + plan["launches"]}
        assert symbols == set(plan["kernels"])
        assert all(symbol.encode() in cubin for symbol in symbols)
        assert all(kernel["registers"] > 0 for kernel in plan["kernels"].values())
        read = [Launch.from_json(launch) for launch in plan["launches"]]
        assert json.loads(json.dumps([launch.to_json() for launch in read])) == plan["launches"]


def test_equal_inputs_give_equal_bytes(graph: Graph, artifact: Artifact) -> None:
    again = build(graph, ["cuda-sm61", "cuda-sm80", "x86-64-v3"])
    assert again.content == artifact.content


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_the_processor_computes(graph: Graph, artifact: Artifact) -> None:
    loaded = Artifact(artifact.content)
    assert loaded.target == "x86-64-v3"
    assert (loaded(image())[0] == Reference(graph)(image())[0]).all()
    with pytest.raises(ArtifactError) as error:
        Artifact(artifact.content, target="cuda-sm80")
    assert str(error.value) == (
        "the artifact is for other hardware: 'cuda-sm80' needs an NVIDIA GPU of compute capability "
        "8.0 to 8.9, and this machine has none that its driver knows; save it and load it on "
        "such a machine, or compile it for a target that this machine has, such as native"
    )


@pytest.mark.usefixtures("artifact", "no_gpu")
def test_a_call_without_a_gpu_is_one_error(graph: Graph) -> None:
    elsewhere = build(graph, "cuda-sm90")
    assert not elsewhere.runs_here
    with pytest.raises(
        ArtifactError, match=r"capability 9.0 to 9.9, and this machine has none"
    ) as error:
        elsewhere(image())
    assert error.value.__cause__ is None
    with pytest.raises(ArtifactError, match="is for other hardware"):
        elsewhere.bench()


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        ((8, 0), {"cuda-sm80"}),
        ((8, 9), {"cuda-sm80"}),
        ((7, 5), {"cuda-sm75"}),
        ((7, 0), set()),
        ((6, 1), {"cuda-sm61"}),
        ((9, 0), {"cuda-sm90"}),
        ((12, 0), set()),
    ],
)
def test_a_cubin_runs_on_its_major_version(
    capability: tuple[int, int], runs: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "compute_capability", lambda: capability)
    names = ("cuda-sm61", "cuda-sm75", "cuda-sm80", "cuda-sm90")
    entries = [describe_target(find_target(name)) for name in names]
    assert {e["name"] for e in entries if matching.obstacle(e) is None} == runs


def test_steps_of_a_gpu_are_not_timed(graph: Graph) -> None:
    with pytest.raises(TargetError, match="'cuda-sm75' is a GPU, whose kernels can't be profiled"):
        profile(graph, "cuda-sm75")


def test_kernels_of_a_gpu_are_not_tuned(tmp_path: Path) -> None:
    image = torch.rand(1, 3, 8, 8)
    captured = capture(torch.nn.Conv2d(3, 8, 3), image)
    graph = Pipeline([InsertQDQ()]).run(captured, [image]).graph
    with pytest.raises(TargetError, match="'cuda-sm75' is a GPU, whose kernels can't be"):
        tune(graph, "cuda-sm75", database=tmp_path / "database", trials=1)


def test_a_processor_is_not_emulated(graph: Graph) -> None:
    with pytest.raises(OptionError, match="'x86-64-v3' is no GPU; choose one of cuda-"):
        EmulatedNetwork(graph, "x86-64-v3")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "0 inputs given, the network also takes"),
        ([image(), image()], "2 inputs given, the network takes 1"),
        ([image()[:, :8]], r"is uint8\[1, 8, 9, 9\], expected uint8\[1, 16, 9, 9\]"),
        ([image().astype(np.float32)], r"is float32\[1, 16, 9, 9\]"),
        ([3], "is a int"),
    ],
)
def test_an_emulated_network_checks_its_inputs(
    emulated: EmulatedNetwork, given: list[Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        emulated(*given)


def test_an_emulated_network_is_of_a_graph() -> None:
    with pytest.raises(ModelError, match="a str is no graph"):
        EmulatedNetwork("q.graph", "cuda-sm80")  # type: ignore[arg-type]


def test_without_nvrtc_the_error_says_what_to_install(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(ctypes.util, "find_library", lambda _: None)
    nvrtc._library.cache_clear()
    try:
        with pytest.raises(TargetError, match=r"needs NVIDIA's compiler NVRTC; pip install"):
            build(graph, "cuda-sm80")
    finally:
        nvrtc._library.cache_clear()


@pytest.mark.usefixtures("artifact")
def test_nvrtc_says_what_it_refuses() -> None:
    with pytest.raises(TargetError, match=r'NVRTC refuses the kernels: .*"nowhere" is undefined'):
        nvrtc.compile_cubin('extern "C" __global__ void f(int* x) { *x = nowhere; }', "sm_80")
    unknown = replace(find_target("cuda-sm80"), cpu="sm_19").cpu
    with pytest.raises(TargetError, match="NVRTC refuses the kernels"):
        nvrtc.compile_cubin("", unknown)

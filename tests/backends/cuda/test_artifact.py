"""Artifacts for GPUs: what they hold, what they say where no GPU is, and the driver's calls."""

import ctypes
import ctypes.util
import gc
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planish import Pipeline, capture
from planish.backends import Artifact, Reference, build, find_target, matching
from planish.backends.cuda import driver, nvrtc
from planish.backends.cuda.emulated import EmulatedNetwork
from planish.backends.cuda.emulator import emulate
from planish.backends.cuda.launch import Launch
from planish.backends.cuda.library import load_library
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
from tests.cuda.__main__ import main
from tests.cuda.making import write

planish = torch.ops.planish


@pytest.fixture(scope="module")
def graph(builder: Any) -> Graph:
    b = builder(5)
    x = b.input(torch.uint8, (1, 16, 9, 9))
    y = b.conv(x, (24, 16, 3, 3), padding=(1, 1, 1, 1), x_zero=7)
    window = ([2, 2], [2, 2], [0] * 4, [1, 1], False)
    return b.finish(b.call(planish.max_pool2d_i8.default, y, *window))


@pytest.fixture(scope="module")
def artifact(graph: Graph) -> Artifact:
    pytest.importorskip("nvidia.cuda_nvrtc", reason="nvidia-cuda-nvrtc-cu12 is not installed")
    return build(graph, ["x86-64-v3", "cuda-sm80", "cuda-sm61"])


@pytest.fixture(scope="module")
def emulated(graph: Graph) -> EmulatedNetwork:
    return EmulatedNetwork(graph, "cuda-sm80")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "compute_capability", lambda: None)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 16, 9, 9)).astype(np.uint8)


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
        "8.0 to 8.9, and this machine has none that its driver knows; at memory; compile it for a "
        "target that this machine has, such as native"
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


@pytest.fixture(scope="module")
def stub_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NVIDIA's driver's library as `driver_stub.c` has it."""
    made = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = Path(__file__).parent / "driver_stub.c"
    command = ["gcc", "-O1", "-shared", "-fPIC", str(source), "-o", str(made)]
    subprocess.run(command, check=True)
    return made


@pytest.fixture
def stub(graph: Graph, stub_library: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in for the driver, which knows the kernels of the graph."""
    stub = ctypes.CDLL(str(stub_library))
    program = EmulatedNetwork(graph, "cuda-sm80").program
    kernels = emulate(program.text, "sm_80")
    stub.stub_begin(ctypes.cast(kernels._launch, ctypes.c_void_p))
    for launch in dict.fromkeys([*program.setup, *program.launches]):
        number = kernels._numbers[launch.kernel]
        stub.stub_kernel(launch.kernel.encode(), number, len(launch.arguments))
    monkeypatch.setattr(driver, "_open", lambda: stub)
    for cached in (driver.compute_capability, driver._driver):
        cached.cache_clear()
    yield stub
    ctypes.c_int.in_dll(stub, "stub_failure").value = 0
    ctypes.c_int.in_dll(stub, "stub_full").value = 0
    for cached in (driver.compute_capability, driver._driver):
        cached.cache_clear()


def count(stub: ctypes.CDLL, name: str) -> int:
    return ctypes.c_int.in_dll(stub, f"stub_{name}").value


def test_an_artifact_runs_through_the_driver(
    graph: Graph, artifact: Artifact, stub: ctypes.CDLL
) -> None:
    loaded = Artifact(artifact.content, target="cuda-sm80")
    assert loaded.runs_here
    for seed in range(2):
        assert (loaded(image(seed))[0] == Reference(graph)(image(seed))[0]).all()
    # Borders are filled once; all else is recorded once, and launched as a whole at each call.
    assert count(stub, "launches") == 1 + 2
    assert len(loaded.manifest["setup"]) == 1
    assert loaded.bench(calls=3, warm_up=0).calls == 3
    call = loaded.prepared(image())
    call()
    del loaded, call
    gc.collect()
    assert [count(stub, name) for name in ("memories", "graphs", "streams")] == [0, 0, 0]


def test_callers_share_the_weights_and_have_memory_of_their_own(
    graph: Graph, artifact: Artifact, stub: ctypes.CDLL
) -> None:
    loaded, before = Artifact(artifact.content, target="cuda-sm80"), count(stub, "memories")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(loaded, [image(seed) for seed in range(12)]))
    for seed, result in enumerate(results):
        assert (result[0] == Reference(graph)(image(seed))[0]).all()
    # Workspace, input and output of each; the first caller's are there since it was loaded.
    assert count(stub, "memories") - before in (0, 3, 6, 9)
    assert count(stub, "streams") == 1 + (count(stub, "memories") - before) // 3


def test_loading_needs_neither_torch_nor_tvm(artifact: Artifact, tmp_path: Path) -> None:
    artifact.save(tmp_path / "a.planish")
    np.save(tmp_path / "x.npy", image())
    code = (
        "import sys; sys.modules.update(torch=None, tvm=None, onnx=None)\n"
        "import numpy as np; from planish.backends import load\n"
        "loaded = load('a.planish', 'x86-64-v3')\n"
        "loaded(np.load('x.npy')); print(*loaded.targets)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["cuda-sm80", "cuda-sm61", "x86-64-v3"], done.stderr


@pytest.mark.usefixtures("stub")
def test_what_the_gpu_is() -> None:
    facts = driver.device_facts()
    assert (facts.name, facts.capability, facts.multiprocessors) == ("Stub", (8, 6), 10)
    assert (facts.clock, facts.bandwidth) == (1.5e9, 320e9)


def test_the_driver_s_errors_have_its_own_names(artifact: Artifact, stub: ctypes.CDLL) -> None:
    ctypes.c_int.in_dll(stub, "stub_failure").value = 209
    with pytest.raises(ArtifactError, match="cuModuleLoadData: CUDA_ERROR_NO_BINARY_FOR_GPU"):
        Artifact(artifact.content, target="cuda-sm80")


def test_a_gpu_without_memory_is_passed_over(
    graph: Graph, artifact: Artifact, stub: ctypes.CDLL
) -> None:
    ctypes.c_int.in_dll(stub, "stub_full").value = 1
    reason = "'cuda-sm80' fits, but NVIDIA's driver failed in cuDevicePrimaryCtxRetain: "
    reason += "CUDA_ERROR_OUT_OF_MEMORY"
    loaded = Artifact(artifact.content)
    assert loaded.target == "x86-64-v3"
    assert loaded.passed_over == {"cuda-sm80": reason}
    assert (loaded(image())[0] == Reference(graph)(image())[0]).all()
    with pytest.raises(ArtifactError) as error:
        Artifact(artifact.content, "a.planish", "cuda-sm80")
    assert str(error.value) == (
        f"the artifact can't be loaded: {reason}; at a.planish; load it with target='x86-64-v3', "
        "or see what else uses the GPU (nvidia-smi)"
    )
    made = build(graph, "cuda-sm80")
    assert not made.runs_here
    with pytest.raises(ArtifactError, match=r"OUT_OF_MEMORY; at memory; see what else uses the"):
        made(image())


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize(
    "place", [("workspace", 0, 1 << 30), ("input", 1, 0), ("output", 0, -1), ("elsewhere", 0, 0)]
)
def test_a_launch_stays_in_the_memory_that_there_is(
    artifact: Artifact, place: tuple[str, int, int]
) -> None:
    manifest = Artifact(artifact.content, target="cuda-sm80").manifest
    kernel, grid, block, shared, places = manifest["launches"][0]
    forged = [[kernel, grid, block, shared, [place, *places[1:]]]]
    parameters = np.zeros(manifest["parameter_bytes"], np.uint8)
    with pytest.raises(ValueError, match=f"gets {place[0]} {place[1]} at {place[2]}"):
        load_library(b"", {**manifest, "launches": forged}, parameters)


def test_a_driver_that_lacks_a_function_is_too_old(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.c").write_text("int nothing;\n")
    made = tmp_path / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "old.c", "-o", made], check=True)
    monkeypatch.setattr(driver, "_open", lambda: ctypes.CDLL(str(made)))
    driver.compute_capability.cache_clear()
    assert Artifact(artifact.content).target == "x86-64-v3"
    with pytest.raises(ArtifactError, match="driver is too old: it has no cuInit, CUDA 12 is need"):
        Artifact(artifact.content, target="cuda-sm80")
    driver.compute_capability.cache_clear()


def test_an_old_driver_s_lack_is_found_when_loading(
    artifact: Artifact, stub: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Old:
        def __getattr__(self, name: str) -> Any:
            if name == "cuGraphInstantiateWithFlags":
                raise AttributeError(name)
            return getattr(stub, name)

    monkeypatch.setattr(driver, "_open", Old)
    loaded = Artifact(artifact.content)
    assert loaded.target == "x86-64-v3"
    assert "it has no cuGraphInstantiateWithFlags" in loaded.passed_over["cuda-sm80"]


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(driver, "_open", missing)
    for cached in (driver.compute_capability, driver._driver):
        cached.cache_clear()
    try:
        with pytest.raises(ArtifactError, match="there is no NVIDIA GPU here"):
            driver.device_facts()
    finally:
        driver.compute_capability.cache_clear()


@pytest.mark.usefixtures("stub")
def test_what_another_machine_prepared(
    graph: Graph, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "case.planish", graph, "cuda-sm80")
    assert main(["run", str(tmp_path)]) == 0
    assert "1 of 1 equal the reference in every bit" in capsys.readouterr().out
    with np.load(tmp_path / "case.npz") as stored:
        arrays = dict(stored)
    arrays["output.2.0"].view("u1").reshape(-1)[7] ^= 1
    np.savez(tmp_path / "case.npz", **arrays)
    assert main(["run", str(tmp_path)]) == 1
    assert "case: 4 inputs, 1 of " in capsys.readouterr().out


def test_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path)]) == 2
    assert "has no cases; python -m tests.cuda make" in capsys.readouterr().err
    assert main(["make", str(tmp_path), "x86-64-v3"]) == 2
    assert "target 'x86-64-v3' is no GPU" in capsys.readouterr().err
    assert main([]) == 2
    assert "usage: python -m tests.cuda make FOLDER" in capsys.readouterr().err


def test_running_it_needs_neither_torch_nor_tvm(graph: Graph, tmp_path: Path) -> None:
    write(tmp_path / "case.planish", graph, "cuda-sm80")
    code = (
        "import sys; sys.modules.update(torch=None, tvm=None, onnx=None, pytest=None)\n"
        "from tests.cuda.__main__ import main; sys.exit(main(['run', sys.argv[1]]))"
    )
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 2
    assert "tests.cuda: " in done.stderr
    assert "Traceback" not in done.stderr

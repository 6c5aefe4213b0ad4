"""The driver's calls, and what another machine prepared for a GPU."""

import ctypes
import ctypes.util
import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planish.backends import Artifact, Reference, build
from planish.backends.cuda import driver
from planish.backends.cuda.library import load_library
from planish.ir import (
    ArtifactError,
    Graph,
)
from tests.backends.cuda.artifacts import count, image
from tests.cuda.__main__ import main
from tests.cuda.making import write


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
    with pytest.raises(ArtifactError, match=r"OUT_OF_MEMORY; see what else uses the"):
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


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize("harm", ["missing", "garbage", "no target", "no outputs", "fewer outputs"])
def test_a_damaged_case_is_one_line(
    harm: str, graph: Graph, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "case.planish", graph, "cuda-sm80")
    path = tmp_path / "case.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    path.unlink()
    if harm == "garbage":
        path.write_bytes(b"PK garbage")
    elif harm == "fewer outputs":
        np.savez(path, **arrays, **{"output.0.1": arrays["output.0.0"]})
    elif harm != "missing":
        left = "output" if harm == "no outputs" else "target"
        np.savez(path, **{name: a for name, a in arrays.items() if not name.startswith(left)})
    assert main(["run", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


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

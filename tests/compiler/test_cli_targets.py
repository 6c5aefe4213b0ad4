"""`planish targets`, and `compile` and `run` with several targets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from planish import Graph, Pipeline
from planish.backends import matching
from planish.backends.cpu import cpu_flags
from planish.backends.cuda import driver
from planish.backends.targets import BEST_FIRST, TARGETS
from planish.cli.app import app
from planish.passes import FoldBatchNorm, InsertQDQ


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def parsed(*words: str | Path) -> Any:
    result = call(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def folder(graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    graph.save(tmp_path / "small.graph")
    images = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
    np.save(tmp_path / "x.npy", images)
    return tmp_path


def test_targets_say_what_runs_here() -> None:
    rows = parsed("targets")
    assert [row["name"] for row in rows] == list(TARGETS)
    here = {row["name"]: row["runs_here"] for row in rows}
    assert here["x86-64-v3"] == ("avx2" in cpu_flags())
    assert here["x86-avxvnni"] == ("avx_vnni" in cpu_flags())
    best = next(name for name in BEST_FIRST if here[name] and not name.startswith("cuda-"))
    assert rows[-1]["description"] == f"this processor: {best}"
    by_name = {row["name"]: row for row in rows}
    assert by_name["armv8"]["instructions"] == ["smull", "smlal"]
    assert by_name["armv8-i8mm"]["instructions"] == ["usmmla", "usdot"]
    text = call("targets").stdout
    assert all(name in text for name in TARGETS)
    lines = [line for line in text.splitlines() if line.startswith(" cuda-")]
    assert lines
    assert not any("bits" in line for line in lines)


def test_several_targets_in_one_file(folder: Path) -> None:
    words = ["compile", "small.graph", "-o", "a.planish", "--target", "x86-64-v3, x86-64-v4"]
    summary = parsed(*words)
    assert summary["targets"] == ["x86-64-v4", "x86-64-v3"]
    assert summary["bytes"] == (folder / "a.planish").stat().st_size
    memory = summary["memory"]
    assert list(memory) == ["activations", "unplanned", "least", "parameters"]
    assert 0 < memory["least"] <= memory["activations"]
    chosen = parsed("run", "a.planish", "-i", "x.npy", "-o", "best.npz")["target"]
    assert chosen == summary["target"]
    forced = parsed("run", "a.planish", "-i", "x.npy", "-o", "v3.npz", "--target", "x86-64-v3")
    assert forced["target"] == "x86-64-v3"
    with np.load(folder / "best.npz") as best, np.load(folder / "v3.npz") as v3:
        for name in best.files:
            np.testing.assert_allclose(best[name], v3[name], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("folder")
def test_compile_says_what_it_made() -> None:
    result = call("compile", "small.graph", "-o", "a.planish", "--target", "x86-64-v4,x86-64-v3")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stderr.split())
    assert "for x86-64-v4, x86-64-v3" in text
    assert "of activations a call (unplanned " in text
    assert "of packed parameters" in text
    assert "this machine runs it as x86-64-v" in text


def test_compile_for_a_gpu(
    graph: Graph, batches: list[Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nvidia.cuda_nvrtc", reason="nvidia-cuda-nvrtc-cu12 is not installed")
    monkeypatch.setattr(matching, "compute_capability", lambda: None)
    quantized = Pipeline([FoldBatchNorm(), InsertQDQ()]).run(graph, batches).graph
    quantized.save(folder / "int8.graph")
    words = ["compile", "int8.graph", "-o", "a.planish", "--target", "x86-64-v3,cuda-sm80"]
    summary = parsed(*words)
    assert (summary["targets"], summary["target"]) == (["cuda-sm80", "x86-64-v3"], "x86-64-v3")
    result = call("run", "a.planish", "-i", "x.npy", "-o", "o.npz", "--target", "cuda-sm80")
    assert result.exit_code == 2
    assert "'cuda-sm80' needs an NVIDIA GPU of compute capability 8.0 to 8.9" in result.stderr
    assert parsed("inspect", "int8.graph", "--target", "cuda-sm80")["target"] == "cuda-sm80"
    # A GPU that fits, whose driver does not answer.
    monkeypatch.setattr(matching, "compute_capability", lambda: (8, 0))
    monkeypatch.setattr(driver, "compute_capability", lambda: None)
    driver._driver.cache_clear()
    result = call("run", "a.planish", "-i", "x.npy", "-o", "o.npz")
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert "passed over: 'cuda-sm80' fits, but there is no NVIDIA GPU here" in said
    assert "x86-64-v3 runs instead" in said
    assert "passed over here: 'cuda-sm80' fits" in " ".join(call(*words).stderr.split())


def test_compile_for_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "cpu_flags", lambda: frozenset({"avx2"}))
    words = ["compile", "small.graph", "-o", "a.planish", "--target", "x86-avxvnni"]
    assert "this machine can't run it" in call(*words).stderr
    assert parsed(*words)["runs_here"] is False
    assert (folder / "a.planish").is_file()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--target", "x86-64-v3,"], ["can't read the targets 'x86-64-v3,'"]),
        (["--target", ""], ["can't read the targets ''; write them as x86-64-v3,x86-avx512vnni"]),
        (["--target", "x86-64-v3,x86-64-v3"], ["target 'x86-64-v3' is given twice"]),
        (["--target", "x86-64-v3,x86-64-v44"], ["unknown target 'x86-64-v44'", "did you mean"]),
    ],
)
def test_bad_lists(folder: Path, words: list[str], parts: list[str]) -> None:
    result = call("compile", "small.graph", "-o", "o", *words)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert all(part in line for part in parts)
    assert not (folder / "o").exists()


def test_run_of_a_target_that_is_not_there(folder: Path) -> None:
    parsed("compile", "small.graph", "-o", "a.planish", "--target", "x86-64-v3")
    result = call("run", "a.planish", "-i", "x.npy", "-o", "o.npz", "--target", "x86-64-v4")
    assert result.exit_code == 2
    assert result.stderr.strip() == (
        "planish: the artifact has no code for target 'x86-64-v4'; at a.planish; it has x86-64-v3"
    )
    assert not (folder / "o.npz").exists()

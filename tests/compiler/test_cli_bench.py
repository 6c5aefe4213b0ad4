"""`planish bench`: alone, several models, other runtimes, layer by layer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import planish
from planish import Graph, passes
from planish.cli.app import app

pytestmark = pytest.mark.isa("avx2")
TARGET = "x86-64-v3"


def bench(*words: str) -> Result:
    return CliRunner().invoke(app, ["bench", *words])


def parsed(*words: str) -> Any:
    result = bench(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def folder(captured: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized graph, its ONNX file and its artifact."""
    path = tmp_path_factory.mktemp("bench")
    images = np.random.default_rng(0).random((8, 3, 8, 8), dtype=np.float32)
    steps = planish.Pipeline([passes.FoldBatchNorm(), passes.InsertQDQ()])
    graph = steps.run(captured, [images]).graph
    graph.save(path / "small.graph")
    planish.export_onnx(graph, path / "small.onnx")
    planish.compile(graph, TARGET).save(path / "small.planish")
    return path


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_an_artifact() -> None:
    data = parsed("small.planish", "--runs", "20")
    (row,) = data["results"]
    assert (row["runs"], row["runtime"], row["threads"]) == (20, "planish", 1)
    assert 0 < row["min_ms"] <= row["median_ms"]
    assert "20 calls" in bench("small.planish", "--runs", "20").stdout


def test_models_beside_another_runtime() -> None:
    pytest.importorskip("onnxruntime")
    words = ["small.graph", "small.onnx", "small.planish", "--against", "onnxruntime"]
    words += ["--runs", "3", "--target", TARGET]
    data = parsed(*words)
    assert [(row["model"], row["runtime"]) for row in data["results"]] == [
        ("small.graph", "planish"),
        ("small.graph", "ONNX Runtime"),
        ("small.onnx", "planish"),
        ("small.onnx", "ONNX Runtime"),
        ("small.planish", "planish"),
    ]
    assert all(row.get("steps_apart", 0) < 3 for row in data["results"])
    (missing,) = data["not_measured"]
    assert "no other runtime reads" in missing["reason"]
    shown = bench(*words)
    assert "ONNX Runtime" in shown.stdout
    assert "not measured: ONNX Runtime" in shown.stderr


def test_profile() -> None:
    words = ["small.onnx", "--profile", "--target", TARGET, "--runs", "2"]
    (profile,) = parsed(*words)["profiles"]
    assert {"stem", "conv", "head"} <= {step["layer"].split("/")[0] for step in profile["steps"]}
    assert profile["macs"] == sum(step["macs"] for step in profile["steps"]) > 0
    shown = bench(*words, "--threads", "1,2").stdout
    for part in ("1 thread(s)", "2 thread(s)", "by kernel", "GMAC/s", "whole call", "peak of"):
        assert part in shown


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["small.planish", "--against", "tvm"], "unknown runtime 'tvm'"),
        (["small.planish", "--threads", "2"], "compiled for 1 thread(s), not 2"),
        (["small.planish", "--threads", "1,x"], "can't read the threads '1,x'"),
        (["small.planish", "--isa", "sse"], "unknown instruction set 'sse'"),
        (["small.planish", "--profile"], "an artifact can't be profiled"),
        (["small.graph", "small.onnx", "--profile"], "--profile takes one model"),
        (["small.graph", "--profile", "--against", "openvino"], "--profile times planish alone"),
        (["small.graph", "--database", "nowhere"], "nowhere"),
        (["nothing.planish"], "can't read the artifact"),
        (["nothing.onnx"], "no such model"),
    ],
)
def test_mistakes(words: list[str], part: str) -> None:
    result = bench(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("planish: ")
    assert part in line

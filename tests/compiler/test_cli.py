"""The command line: every command, its JSON, and one line with exit status 2 for bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import planish
from planish import Graph, Report, passes
from planish.cli.app import app

RECIPE = """
[[pass]]
name = "fold-batch-norm"

[[pass]]
name = "insert-qdq"
"""
COMMANDS = (
    "capture",
    "inspect",
    "compress",
    "compile",
    "run",
    "bench",
    "passes",
    "targets",
    "demo",
)
SHAPE = ["--input-shape", "2x3x8x8"]
Run = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`call("inspect", "model")` runs a command in the test's own folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture
def model(model_file: Path) -> str:
    return f"{model_file}:Small"


@pytest.fixture
def graph_file(graph: Graph, tmp_path: Path) -> Path:
    path = tmp_path / "small.graph"
    graph.save(path)
    return path


@pytest.fixture(scope="module")
def compiled(captured: Graph, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a compiled artifact."""
    images = np.random.default_rng(0).random((8, 3, 8, 8), dtype=np.float32)
    steps = [passes.FoldBatchNorm(), passes.InsertQDQ()]
    quantized = planish.Pipeline(steps).run(captured, [images]).graph
    path = tmp_path_factory.mktemp("artifact") / "small.planish"
    planish.compile(quantized, "x86-64-v3").save(path)
    return path.read_bytes()


@pytest.fixture
def artifact(compiled: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "small.planish"
    path.write_bytes(compiled)
    return path


def parsed(result: Result) -> Any:
    """Return stdout, which must be JSON and nothing else."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def mistake(result: Result) -> str:
    """Return the only line on stderr of a command that ended with status 2."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("planish: ")
    return line


def test_help_names_every_command(call: Run) -> None:
    text = call("--help").stdout
    for name in COMMANDS:
        assert name in text
        assert call(name, "--help").exit_code == 0


def test_version(call: Run) -> None:
    assert call("--version").stdout == f"planish {planish.__version__}\n"


def test_without_a_command(call: Run) -> None:
    result = call()
    assert result.exit_code == 2
    assert "Usage" in result.output


def test_capture(call: Run, model: str, tmp_path: Path) -> None:
    summary = parsed(call("capture", model, "-o", "m.graph", *SHAPE, "--json"))
    assert summary["inputs"] == [{"name": "x", "shape": [None, 3, 8, 8], "dtype": "f32"}]
    assert Graph.load(tmp_path / "m.graph").level.label == "canonical"


def test_capture_of_a_factory_with_examples(call: Run, model_file: Path) -> None:
    assert call("capture", f"{model_file}:with_examples", "-o", "m.graph").exit_code == 0


def test_inspect(call: Run, graph_file: Path) -> None:
    result = call("inspect", graph_file, "--target", "x86-64-v3")
    assert result.exit_code == 0
    for part in ("N x 3 x 8 x 8", "conv2d", "stem", "100.00% of the MACs can run in int8"):
        assert part in result.stdout


def test_inspect_json(call: Run, graph_file: Path) -> None:
    data = parsed(call("inspect", graph_file, "--json"))
    assert data["macs"] == 64 * (3 * 16 * 9 + 16 * 16 * 9) + 160
    assert data["operators"]["conv2d"] == 2
    assert data["int8_mac_coverage"] == 1
    assert data["fallbacks"] == []
    assert [layer["name"] for layer in data["layers"]] == ["stem", "conv", "head"]


def test_inspect_text(call: Run, graph_file: Path) -> None:
    assert call("inspect", graph_file, "--text").stdout == Graph.load(graph_file).text()


def test_compress(call: Run, graph_file: Path, data_file: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    words = ["compress", graph_file, "r.toml", "--data", data_file, "--validation", data_file]
    words += ["-o", "q.graph", "--report", "r.html", "--report", "r.json"]
    words += ["--target", "x86-64-v3", "--seed", "4"]
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert "insert-qdq" in result.stdout
    assert Graph.load(tmp_path / "q.graph").level.label == "quantized"
    assert Report.load(tmp_path / "r.json").seed == 4
    data = parsed(call(*words, "--json"))
    assert [stage["name"] for stage in data["stages"]] == ["input", "fold-batch-norm", "insert-qdq"]


def test_compile_and_run(call: Run, graph_file: Path, tmp_path: Path) -> None:
    summary = parsed(
        call("compile", graph_file, "-o", "a.planish", "--target", "x86-64-v3", "--json")
    )
    assert summary["target"] == "x86-64-v3"
    assert summary["bytes"] == (tmp_path / "a.planish").stat().st_size
    images = np.random.default_rng(0).random((5, 3, 8, 8), dtype=np.float32)
    np.save(tmp_path / "x.npy", images)
    result = call("run", "a.planish", "-i", "x.npy", "-o", "out.npz")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "out.npz") as arrays:
        (found,) = (arrays[name] for name in arrays.files)
    expected = Graph.load(graph_file)(images).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_run_json(call: Run, artifact: Path, data_file: Path) -> None:
    data = parsed(call("run", artifact, "-i", data_file, "-o", "out.npz", "--json"))
    assert list(data["outputs"].values()) == [[40, 10]]


def test_passes(call: Run) -> None:
    data = parsed(call("passes", "--json"))
    assert [item["name"] for item in data][:2] == ["canonicalize", "fold-batch-norm"]
    assert "prune-channels" in call("passes").stdout


def test_one_pass(call: Run) -> None:
    data = parsed(call("passes", "insert-qdq", "--json"))
    options = {item["name"]: item["default"] for item in data["options"]}
    assert options["observer"] == "min-max"
    assert data["needs_data"]
    text = call("passes", "insert-qdq").stdout
    assert "Checks" in text
    assert "per_channel" in text


def test_targets(call: Run) -> None:
    data = parsed(call("targets", "--json"))
    assert {"x86-64-v3", "native"} <= {item["name"] for item in data}
    assert "x86-64-v3" in call("targets").stdout


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["inspect", "nothing.pt2"], ["no such model; at nothing.pt2"]),
        (["inspect", "model.onnx"], ["no such model"]),
        (["inspect", "bad.toml"], ["not a model file"]),
        (["inspect", "models.py"], ["write models.py:factory"]),
        (["inspect", "models.py:Smal", *SHAPE], ["no 'Smal'", "did you mean 'Small'"]),
        (["inspect", "models.py:number"], ["number is a int"]),
        (["inspect", "models.py:failing"], ["failing() failed: ValueError: boom", "models.py:2"]),
        (["inspect", "models.py:Small"], ["give --input-shape"]),
        (["inspect", "models.py:Small", "--input-shape", "3xA"], ["can't read the input shape"]),
        (["inspect", "models.py:Small", "--input-shape", "9999999999999999999x3"], ["too large"]),
        (["inspect", "no_such_module:Small"], ["can't import no_such_module"]),
        (["inspect", "models.py:DataDependent", *SHAPE], ["can't capture", "models.py:22"]),
        (["inspect", "small.graph", *SHAPE], ["input shapes are for Python and ONNX models"]),
        (["inspect", "truncated.graph"], ["truncated.graph"]),
        (["inspect", "small.planish"], ["this is a compiled artifact"]),
        (["inspect", "small.graph", "--target", "x86-64-v33"], ["did you mean 'x86-64-v3'"]),
        (["compress", "small.graph", "bad.toml", "-o", "o"], ["bad.toml, line 1, pass 1"]),
        (["compress", "small.graph", "r.toml", "-o", "o"], ["insert-qdq needs data; give --data"]),
        (["compress", "small.graph", "order.toml", "-o", "o"], ["move it to position 1"]),
        (
            ["compress", "small.graph", "r.toml", "--data", "wrong.npz", "-o", "o"],
            ["has shape [4, 3, 9, 8]"],
        ),
        (
            ["compress", "small.graph", "r.toml", "--data", "nan.npz", "-o", "o"],
            ["NaN or infinity"],
        ),
        (
            ["compress", "small.graph", "r.toml", "--data", ".", "-o", "o"],
            ["give --size, --mean and --std"],
        ),
        (
            ["compress", "small.graph", "r.toml", "--data", "data.npz", "-o", "o", "--report", "r"],
            ["can't write a report as 'r'"],
        ),
        (["compress", "small.graph", "r.toml", "-o", "nowhere/o"], ["no such folder: nowhere"]),
        (["compile", "small.graph", "-o", "o", "--target", "native2"], ["did you mean 'native'"]),
        (["compile", "small.graph", "-o", "o", "--io", "int"], ["unknown io 'int'"]),
        (["compile", "small.graph", "-o", "."], ["a folder stands where the file should be"]),
        (
            ["compile", "small.graph", "-o", "o", "--strict"],
            ["operators stay in float, first ", "with insert-qdq, or compile without --strict"],
        ),
        (["run", "small.graph", "-i", "x.npy", "-o", "o"], ["not a planish artifact"]),
        (["run", "cut.planish", "-i", "x.npy", "-o", "o"], ["cut.planish"]),
        (["run", "small.planish", "-i", "wrong.npz", "-o", "o"], ["[1, 3, 9, 8]"]),
        (["run", "small.planish", "-i", "double.npz", "-o", "o"], ["float64"]),
        (["run", "small.planish", "-i", "two.npz", "-o", "o"], ["the file has no ['x']"]),
        (["run", "small.planish", "-i", "nothing.npz", "-o", "o"], ["no such file"]),
        (["passes", "fold-bach-norm"], ["did you mean 'fold-batch-norm'"]),
        (["demo", "-o", "small.graph/demo"], ["can't make the folder"]),
        (["frobnicate"], ["No such command 'frobnicate'"]),
        (["inspect", "small.graph", "--frob"], ["No such option"]),
        (["run", "small.planish"], ["Missing option"]),
    ],
    ids=lambda value: " ".join(value) if value[0].islower() else None,
)
@pytest.mark.usefixtures("data_file", "model_file")
def test_bad_input(
    call: Run,
    graph_file: Path,
    artifact: Path,
    words: list[str],
    parts: list[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "bad.toml").write_text('[[pass]]\nname = "fold-batch-norms"\n')
    (tmp_path / "order.toml").write_text(
        '[[pass]]\nname = "insert-qdq"\n[[pass]]\nname = "fold-batch-norm"\n'
    )
    content = graph_file.read_bytes()
    (tmp_path / "truncated.graph").write_bytes(content[: len(content) // 2])
    (tmp_path / "cut.planish").write_bytes(artifact.read_bytes()[:3000])
    images = np.zeros((4, 3, 8, 8), np.float32)
    np.save(tmp_path / "x.npy", images)
    np.savez(tmp_path / "wrong.npz", x=np.zeros((4, 3, 9, 8), np.float32))
    np.savez(tmp_path / "double.npz", x=images.astype(np.float64))
    np.savez(tmp_path / "nan.npz", x=np.full_like(images, np.nan))
    np.savez(tmp_path / "two.npz", y=images, z=images)
    before = sorted(tmp_path.rglob("*"))
    line = mistake(call(*words))
    for part in parts:
        assert part in line
    left = [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in str(path)]
    assert left == [path for path in before if "__pycache__" not in str(path)]


def test_a_full_disk(
    call: Run, graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = mistake(call("compile", graph_file, "-o", "o", "--target", "x86-64-v3"))
    assert "No space left on device" in line
    assert not (tmp_path / "o").exists()


def test_other_system_errors(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise OSError(5, "Input/output error", "some/file")

    monkeypatch.setattr("planish.passes.registry.pass_names", broken)
    assert mistake(call("passes")) == "planish: Input/output error; at some/file"


def test_an_interrupt(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("planish.passes.registry.pass_names", interrupted)
    result = call("passes")
    assert result.exit_code == 130
    assert result.stderr == "planish: interrupted; nothing was written\n"


def test_a_signal_ends_it(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    words = [sys.executable, "-m", "planish.cli", "inspect", "slow.py:model"]
    with subprocess.Popen(
        words,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in the background with interrupts ignored; this one must hear it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(20) == 130
    assert rest == "planish: interrupted; nothing was written\n"


@pytest.mark.parametrize("words", [["-c", "import planish"], ["-m", "planish.cli", "--help"]])
def test_it_starts_quickly(words: list[str]) -> None:
    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 0.5


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom planish.cli.app import app\n"
        "print(*sorted({'torch', 'tvm', 'numpy', 'onnx', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_export(call: Run, graph_file: Path, tmp_path: Path) -> None:
    data = parsed(call("export", graph_file, "--out", tmp_path / "x.onnx", "--json"))
    assert data["level"] == "canonical"
    assert data["opset"] == 17
    assert data["quantize_linear"] == 0
    again = parsed(call("inspect", tmp_path / "x.onnx", "--json"))
    assert again["macs"] == parsed(call("inspect", graph_file, "--json"))["macs"]
    assert [tensor["name"] for tensor in again["outputs"]] == ["output"]
    assert "wrote" in call("export", graph_file, "-o", tmp_path / "y.onnx", "--opset", "20").stderr


def test_export_refuses(call: Run, graph_file: Path, tmp_path: Path) -> None:
    result = call("export", graph_file, "--out", tmp_path / "x.onnx", "--opset", "3")
    assert result.exit_code == 2
    assert "opset 3 can't be written; choose one of 17 to" in result.stderr
    assert not (tmp_path / "x.onnx").exists()

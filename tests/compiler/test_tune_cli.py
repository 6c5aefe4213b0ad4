"""`planish tune`, `planish.tune` and what compiling makes of the results."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import planish
from planish import Graph, passes
from planish.backends.targets import find_target
from planish.backends.tuning.database import Database
from planish.backends.tuning.tuner import Progress
from planish.cli.app import app

pytestmark = pytest.mark.isa("avx2")
Call = Callable[..., Result]
TARGET = "x86-64-v3"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`call("tune", ...)` runs a command in the test's own folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture(scope="module")
def quantized(captured: Graph) -> Graph:
    images = np.random.default_rng(0).random((8, 3, 8, 8), dtype=np.float32)
    steps = [passes.FoldBatchNorm(), passes.InsertQDQ()]
    return planish.Pipeline(steps).run(captured, [images]).graph


@pytest.fixture
def file(quantized: Graph, tmp_path: Path) -> Path:
    path = tmp_path / "quantized.graph"
    quantized.save(path)
    return path


def count(database: Path) -> int:
    return len(Database(database, find_target(TARGET), create=False))


def test_tune_then_compile(call: Call, file: Path, quantized: Graph, tmp_path: Path) -> None:
    words = ["tune", file, "--target", TARGET, "--database", "db", "--trials"]
    first = call(*words, "4")
    assert first.exit_code == 0, first.output
    assert "4 trials in" in first.stdout
    assert "us untuned" in first.stdout
    assert count(tmp_path / "db") >= 4

    second = call(*words, "3", "--json")
    assert second.exit_code == 0, second.output
    result = json.loads(second.stdout)
    assert (result["trials"], result["stopped"]) == (3, "trials")
    assert sum(layer["measured"] for layer in result["layers"]) == 7
    assert all(layer["untuned_us"] >= layer["tuned_us"] > 0 for layer in result["layers"])

    compiled = call("compile", file, "-o", "a.planish", "--target", TARGET, "--database", "db")
    assert compiled.exit_code == 0, compiled.output
    artifact = planish.load(tmp_path / "a.planish")
    image = np.random.default_rng(1).random((1, 3, 8, 8), dtype=np.float32)
    plain = planish.compile(quantized, TARGET)
    assert np.array_equal(artifact(image), plain(image))


def test_from_python(quantized: Graph, tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = planish.tune(
        quantized, TARGET, trials=3, database=tmp_path / "db", progress=seen.append
    )
    assert result.trials == 3
    assert [progress.trial for progress in seen[:3]] == [1, 2, 3]
    assert {progress.trials for progress in seen} == {3}
    planish.compile(quantized, TARGET, database=tmp_path / "db")


def test_threads_are_tuned_by_themselves(quantized: Graph, tmp_path: Path) -> None:
    options: dict[str, Any] = {"trials": 1, "database": tmp_path / "db"}
    planish.tune(quantized, TARGET, **options)
    planish.tune(quantized, TARGET, threads=2, **options)
    database = Database(tmp_path / "db", find_target(TARGET), create=False)
    assert [json.loads(key)["threads"] for key in database.workloads] == [1, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "x86-64-v9"], "unknown target 'x86-64-v9'"),
        (["--rpc-tracker", "127.0.0.1:9190"], "a tracker and a device key belong together"),
        (["--rpc-tracker", "here", "--device-key", "k"], "'here' is not host:port"),
        (["--rpc-tracker", "127.0.0.1:1", "--device-key", "k"], "no RPC tracker answers"),
        (["--seconds", "0"], "seconds is 0.0, it must be above 0"),
        (["--measure-seconds", "-1"], "measure_seconds is -1.0, it must be above 0"),
        (["--database", "taken"], "this is no tuning database"),
        (["--database", "other"], "the database is for target 'x86-avx512vnni'"),
        (["--target", "armv8"], "'armv8' is for aarch64, this machine is x86_64"),
        (["--target", "cuda-sm80"], "'cuda-sm80' is a GPU, whose kernels can't be profiled"),
    ],
)
def test_mistakes(call: Call, file: Path, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    Database(tmp_path / "other", find_target("x86-avx512vnni"), create=True)
    base = ["tune", str(file), "--target", TARGET, "--database", "db", "--trials", "1"]
    result = call(*base, *words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert message in line
    assert not (tmp_path / "db").exists()


def test_compiling_with_a_bad_database(call: Call, file: Path, quantized: Graph) -> None:
    result = call("compile", file, "-o", "a.planish", "--target", TARGET, "--database", "none")
    assert result.exit_code == 2
    assert "no tuning database; at none; planish tune makes one" in result.stderr
    planish.tune(quantized, TARGET, trials=1, database="db")
    both = call("compile", file, "-o", "a", "--target", f"{TARGET},x86-64-v4", "--database", "db")
    assert both.exit_code == 2
    assert "a tuning database is for one target" in both.stderr


def start(file: Path, folder: Path) -> "subprocess.Popen[str]":
    words = ["tune", str(file), "--target", TARGET, "--database", "db", "--trials", "1000"]
    return subprocess.Popen(
        [sys.executable, "-m", "planish.cli", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )


def wait_for_records(process: "subprocess.Popen[str]", folder: Path, least: int) -> None:
    file, end = folder / "db" / "records.jsonl", time.monotonic() + 120
    while not file.exists() or file.read_bytes().count(b"\n") < least:
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < end, "nothing was measured"
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_and_interrupted(file: Path, tmp_path: Path) -> None:
    killed = start(file, tmp_path)
    wait_for_records(killed, tmp_path, 3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    kept = count(tmp_path / "db")
    assert kept >= 3

    interrupted = start(file, tmp_path)
    wait_for_records(interrupted, tmp_path, kept + 3)
    interrupted.send_signal(signal.SIGINT)
    output, errors = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130, errors
    after = count(tmp_path / "db")
    assert after >= kept + 3
    assert "stopped: interrupted" in output
    assert f"interrupted; {after - kept} new measurements are kept in db" in errors

"""run, bench and tune with --rpc: a real server on this machine, and mistakes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import planish
from planish import Graph, passes
from planish.backends import Artifact
from planish.backends.targets import find_target
from planish.backends.tuning.database import Database
from planish.cli.app import app
from tests.servers import rpc_server

pytestmark = pytest.mark.isa("avx2")
Call = Callable[..., Result]
TARGET = "x86-64-v3"


@pytest.fixture(scope="module")
def device() -> Iterator[str]:
    with rpc_server() as (address, _):
        yield f"{address[0]}:{address[1]}"


@pytest.fixture(scope="module")
def quantized(captured: Graph) -> Graph:
    images = np.random.default_rng(0).random((8, 3, 8, 8), dtype=np.float32)
    steps = [passes.FoldBatchNorm(), passes.InsertQDQ()]
    return planish.Pipeline(steps).run(captured, [images]).graph


@pytest.fixture(scope="module")
def artifact(quantized: Graph) -> Artifact:
    return planish.compile(quantized, TARGET)


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantized: Graph, artifact: Artifact
) -> Call:
    """`call("run", ...)` runs a command where model.graph, model.planish and images.npy are."""
    monkeypatch.chdir(tmp_path)
    quantized.save("model.graph")
    artifact.save("model.planish")
    np.save("images.npy", np.random.default_rng(1).random((4, 3, 8, 8), dtype=np.float32))

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return run


def test_run(call: Call, device: str) -> None:
    words = ["run", "model.planish", "--input", "images.npy", "--output"]
    assert call(*words, "here.npz").exit_code == 0
    there = call(*words, "there.npz", "--rpc", device, "--json")
    assert there.exit_code == 0, there.output
    assert json.loads(there.stdout)["target"] == TARGET
    with np.load("here.npz") as here, np.load("there.npz") as found:
        assert list(found) == list(here)
        assert all(np.array_equal(found[name], here[name]) for name in here)
        assert all(len(found[name]) == 4 for name in found)


def test_bench_an_artifact_and_a_model(call: Call, device: str) -> None:
    words = ["bench", "model.planish", "model.graph", "--rpc", device, "--runs", "12"]
    done = call(*words, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["processor"] == f"device {device}"
    assert told["not_measured"] == []
    first, second = told["results"]
    assert (first["model"], first["target"], first["runs"]) == ("model.planish", TARGET, 12)
    assert second["model"] == "model.graph"
    assert second["compile_s"] > 0
    assert all(0 < each["min_ms"] <= each["median_ms"] for each in told["results"])

    table = call(*words)
    assert table.exit_code == 0, table.output
    assert f"12 calls each, on {device}, by its own clock" in table.stdout


def test_bench_for_threads(call: Call, device: str) -> None:
    done = call(
        "bench", "model.graph", "--rpc", device, "--threads", "1,2", "--runs", "3", "--json"
    )
    assert done.exit_code == 0, done.output
    assert [each["threads"] for each in json.loads(done.stdout)["results"]] == [1, 2]


def test_tune(call: Call, device: str) -> None:
    words = ["tune", "model.graph", "--rpc", device, "--trials", "3", "--database", "db"]
    done = call(*words, "--target", TARGET, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["trials"] == 3
    database = Database("db", find_target(TARGET), create=False)
    devices = {r.device for key in database.workloads for r in database.records(key)}
    assert devices == {device}
    done = call("compile", "model.graph", "-o", "tuned", "--target", TARGET, "--database", "db")
    assert done.exit_code == 0, done.output


def test_tuning_for_what_the_device_is(call: Call, device: str) -> None:
    words = ["tune", "model.graph", "--rpc", device, "--trials", "1", "--database", "db"]
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert len(Database("db", find_target("native"), create=False)) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--output", "o.npz", "--input", "images.npy"], "no RPC server answers"),
        (["bench"], "no RPC server answers"),
        (["tune", "--trials", "1", "--database", "db"], "no RPC server answers"),
    ],
)
def test_nobody_listens(call: Call, words: list[str], message: str) -> None:
    command, *rest = words
    model = "model.planish" if command == "run" else "model.graph"
    check_mistake(call(command, model, *rest, "--rpc", "127.0.0.1:1"), message)
    check_mistake(call(command, model, *rest, "--rpc", "board"), "'board' is not host:port")


def test_mistakes(call: Call, device: str) -> None:
    there = ("--rpc", device)
    for extra in (("--profile",), ("--against", "onnxruntime"), ("--isa", "avx2")):
        check_mistake(call("bench", "model.graph", *there, *extra), "--rpc times planish's whole")
    check_mistake(
        call("bench", "model.planish", *there, "--threads", "2"), "compiled for 1 thread(s), not 2"
    )
    check_mistake(
        call("bench", "model.graph", *there, "--threads", "100000"), "thread(s) at once, not 100000"
    )
    check_mistake(call("bench", "model.graph", "--threads", "100000"), "it must be from 1 to 1024")
    check_mistake(call("bench", "model.graph", *there, "--target", "cuda-sm80"), "is a GPU's")
    tracker = ("--rpc-tracker", "127.0.0.1:9190", "--device-key", "k")
    tune = ("tune", "model.graph", "--trials", "1", "--database", "db")
    check_mistake(call(*tune, *tracker, "--target", "cuda-sm80"), "is a GPU's")
    check_mistake(call(*tune, *there, *tracker), "one device or on a tracker's")
    run = ("run", "model.planish", "--input", "images.npy", "-o", "o.npz", *there)
    check_mistake(call(*run, "--target", "armv8"), "no code for target 'armv8'")
    assert not Path("o.npz").exists()


def check_mistake(result: Result, message: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert message in line

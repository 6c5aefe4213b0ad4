"""The demo on few images: everything is made and measured, only less well."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import planish
from planish import datasets
from planish.datasets import Dataset, Split
from planish.demo import Settings, data, run_demo
from planish.demo.run import _differ
from planish.demo.verdicts import Findings, verdicts
from planish.passes.context import Progress
from planish.report import Peer, Report, Stage


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """Noise with labels, shaped and called like Fashion-MNIST."""
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = random.integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)
        return Split(images, random.integers(0, 10, count))

    return Dataset("fashion-mnist", "noise", tuple("0123456789"), split(128), split(60))


def run(output: Path, monkeypatch: pytest.MonkeyPatch, found: Dataset) -> Report:
    monkeypatch.setattr(data, "fashion_mnist", lambda: found)
    settings = Settings(output=output, epochs=1, target="x86-64-v3", runs=20)
    return run_demo(settings, Progress())


@pytest.mark.slow
def test_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Dataset) -> None:
    report = run(tmp_path / "demo", monkeypatch, tiny)
    saved = json.loads((tmp_path / "demo" / "report.json").read_text())
    names = ["teacher", "prune-channels", "remove-teacher-hooks", "fold-batch-norm"]
    names += ["insert-qdq", "lower-to-integer", "compiled"]
    assert [stage["name"] for stage in saved["stages"]] == names
    assert saved["int8_mac_coverage"] == 1
    assert saved["reference_mismatches"] == 0
    assert saved["fallbacks"] == []
    assert saved["target"] == "x86-64-v3"
    assert saved["stages"][-1]["latency_ms"] > 0
    assert saved["stages"][-1]["macs"] <= 0.5 * saved["stages"][0]["macs"]
    assert [peer["name"] for peer in saved["peers"]] == [
        "ONNX Runtime fp32",
        "ONNX Runtime fp32",
        "ONNX Runtime int8",
    ]
    assert len(report.verdicts) == 9
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
    image = tiny.test.images[:1].astype(np.float32) / 255
    artifact = planish.load(tmp_path / "demo" / "model.planish")
    reference = planish.Graph.load(tmp_path / "demo" / "integer.planish-graph")
    assert (artifact(image) == reference(torch.from_numpy(image)).numpy()).all()
    assert planish.Pipeline.from_toml(tmp_path / "demo" / "recipe.toml").passes


@pytest.mark.slow
def test_digits_in_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    found = datasets.digits()
    train = Split(found.train.images[:256], found.train.labels[:256])
    test = Split(found.test.images[:40], found.test.labels[:40])
    few = Dataset(found.name, found.source, found.classes, train, test)
    monkeypatch.setattr("planish.demo.run._DIGIT_EPOCHS", 1)
    report = run(tmp_path, monkeypatch, few)
    assert report.title == "ResNet-20 on scikit-learn's digits"
    assert report.notes["data"] == "scikit-learn"
    assert report.reference_mismatches == 0


def test_batches_depend_on_seed_and_epoch(tiny: Dataset) -> None:
    def first(seed: int, epoch: int) -> torch.Tensor:
        batches = data.TrainingBatches(tiny.train, batch=32, seed=seed, augmented=True)
        batches.set_epoch(epoch)
        return next(iter(batches))[0]

    assert torch.equal(first(0, 0), first(0, 0))
    assert not torch.equal(first(0, 0), first(0, 1))
    assert not torch.equal(first(0, 0), first(1, 0))


def test_batches_leave_random_state_alone(tiny: Dataset) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(data.TrainingBatches(tiny.train, batch=32, seed=0, augmented=True))
    assert torch.equal(torch.rand(1), expected)


def test_small_data_is_one_batch(tiny: Dataset) -> None:
    batches = data.TrainingBatches(tiny.train, batch=1000, seed=0, augmented=False)
    assert [len(labels) for _, labels in batches] == [128]


def test_limit(monkeypatch: pytest.MonkeyPatch, tiny: Dataset) -> None:
    monkeypatch.setattr(data, "fashion_mnist", lambda: tiny)
    limited = data.load(50)
    assert (len(limited.train.labels), len(limited.test.labels)) == (50, 50)


def test_bits_are_compared() -> None:
    found = np.array([[0.0, 1.0], [0.0, 2.0], [np.nan, 3.0]], np.float32)
    other = np.array([[0.0, 1.0], [-0.0, 2.0], [np.nan, 3.0]], np.float32)
    assert _differ(found, other).tolist() == [False, True, False]
    assert _differ(found, other.astype(np.float64)).all()


def report_with(accuracy: float, latency: float | None, peers: list[Peer]) -> Report:
    stages = [
        Stage("teacher", "canonical", 10, 100, 4000, 0.94),
        Stage("compiled", "compiled", 5, 50, 100, accuracy, latency),
    ]
    return Report(stages=stages, peers=peers, int8_mac_coverage=1.0, reference_mismatches=0)


def test_verdicts() -> None:
    peers = [
        Peer("ONNX Runtime fp32", "teacher", 0.4, 0.4, 10, 0.94, 800),
        Peer("ONNX Runtime int8", "pruned, static QDQ", 0.1, 0.1, 10, 0.93, 300),
    ]
    good = verdicts(report_with(0.936, 0.09, peers), Findings(100, 5, 800))
    assert all(verdict.passed for verdict in good)
    bad = verdicts(report_with(0.934, 0.11, peers), Findings(100, 6, 600))
    assert [v.passed for v in bad] == [True, False, True, False, True, True, False, False, False]


def test_what_was_not_measured_is_not_kept() -> None:
    peers = [Peer("ONNX Runtime fp32", "teacher", reason="ONNX Runtime is not installed")]
    found = verdicts(report_with(0.94, 0.1, peers), Findings(100, 0, None))
    assert [v.found for v in found if not v.passed] == [
        "not measured",
        "ONNX Runtime is not installed",
        "not measured",
    ]

"""Other runtimes: export, quantization, timing in turns; what is missing is said, not raised."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from planish import Graph
from planish.evaluate import evaluating
from planish.ir import OptionError
from planish.latency import interleaved
from planish.peers import onnx_runtimes

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def test_onnx_runtime(graph: Graph, batches: Batches, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = onnx_runtimes(graph, "small", tmp_path, batches)
    assert [(r.name, r.model) for r in found] == [
        ("ONNX Runtime fp32", "small"),
        ("ONNX Runtime int8", "small, static QDQ"),
    ]
    images = batches[0][0]
    with evaluating(graph):
        expected = graph(images).numpy()
    exact, rough = (runtime.run(images.numpy()) for runtime in found)
    np.testing.assert_allclose(exact, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(rough - expected).max() < 0.1 * np.abs(expected).max()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small-int8.onnx", "small.onnx"]


def test_what_is_missing_has_a_reason(
    graph: Graph, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("planish.onnx_export.export_onnx", lambda _, path: path)
    for runtime in onnx_runtimes(graph, "small", tmp_path, batches):
        peer = runtime.peer()
        assert peer.latency_ms is None
        assert "ONNX Runtime is not installed" in str(peer.reason)


def test_calls_take_turns() -> None:
    order: list[str] = []
    found = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, runs=25)
    assert all(timing.runs == 30 for timing in found.values())
    assert all(0 < timing.minimum <= timing.median for timing in found.values())
    blocks = "".join(order).replace("a" * 12, "A").replace("b" * 12, "B")
    assert blocks == "AB" + "BA" + "AB"


def test_runs_must_be_positive() -> None:
    with pytest.raises(OptionError, match="runs must be at least 1"):
        interleaved({}, runs=0)

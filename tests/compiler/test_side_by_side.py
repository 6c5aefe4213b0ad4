"""One model in several runtimes: the same file, the same inputs, answers compared."""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import planish
from planish import Graph, passes
from planish.backends import TensorInfo
from planish.ir import OptionError
from planish.latency import Timing
from planish.openvino_runtime import limit_instructions
from planish.side_by_side import (
    Result,
    Settings,
    Subject,
    example_inputs,
    measure,
    ratios,
    steps_apart,
)

pytestmark = pytest.mark.isa("avx2")


class Lookup(nn.Module):
    """Rows of a table, weighted: an int64 and a float32 input, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 16)

    def forward(self, rows: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.table(rows) * weights.unsqueeze(-1)
        return found, torch.softmax(found, -1)


@pytest.fixture(scope="module")
def subject(captured: Graph) -> Subject:
    images = np.random.default_rng(0).random((8, 3, 8, 8), dtype=np.float32)
    steps = planish.Pipeline([passes.FoldBatchNorm(), passes.InsertQDQ()])
    return Subject("small", steps.run(captured, [images]).graph)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_same_model_elsewhere(subject: Subject, name: str, tmp_path: Path) -> None:
    """One QDQ file with an open batch, run at batch 3: nearly the same integers come out."""
    pytest.importorskip(name)
    settings = Settings((name,), "x86-64-v3", threads=2, batch=3, runs=2)
    own, other = measure([subject], settings, tmp_path)
    assert (own.runtime, own.apart) == ("planish", None)
    assert other.reason is None
    assert other.apart is not None
    assert other.apart < 3
    assert other.timing is not None
    assert other.facts["version"].startswith(importlib.import_module(name).__version__[:6])
    assert len(list(tmp_path.glob("*.onnx"))) == 1


def test_what_is_missing_has_a_reason(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    settings = Settings(("onnxruntime", "openvino"), "x86-64-v3", runs=1)
    own, *others = measure([subject], settings, tmp_path)
    assert own.timing is not None
    assert [other.timing for other in others] == [None, None]
    assert "ONNX Runtime is not installed" in str(others[0].reason)
    assert "OpenVINO is not installed" in str(others[1].reason)


def test_an_unreadable_model_has_a_reason(subject: Subject, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    bad = Subject("bad", subject.graph, onnx=tmp_path / "bad.onnx")
    _, other = measure([bad], Settings(("openvino",), "x86-64-v3", runs=1), tmp_path)
    assert "OpenVINO can't run it" in str(other.reason)


def test_a_runtime_that_is_loaded_keeps_its_instructions(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", sys)
    with pytest.raises(OptionError, match="can't be limited to AVX2 any more"):
        measure([subject], Settings(("openvino",), isa="avx2"), tmp_path)


def test_newer_instructions_are_left_alone_before_openvino_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    limit_instructions("AVX2")
    limit_instructions("AVX2")
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_what_cant_be_limited_has_a_reason(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    settings = Settings(("onnxruntime",), "x86-64-v3", runs=1, isa="avx2")
    own, other = measure([subject], settings, tmp_path)
    assert own.timing is not None
    assert other.reason == "it can't be limited to avx2"


def test_noise_covers_what_the_input_is_quantized_to() -> None:
    info = TensorInfo("x", (1, 1000), "float32", 0.5, 100, "uint8")
    (values,) = example_inputs([info])
    assert values.dtype == np.float32
    steps = values / 0.5 + 100
    assert abs(steps.mean() - 127.5) < 5
    assert 30 < steps.std() < 50
    (numbers,) = example_inputs([TensorInfo("i", (9,), "int64")])
    assert numbers.min() >= 0


def test_steps_apart() -> None:
    expected = np.array([0.0, 0.5, 2.55])
    scaled = [TensorInfo("y", (3,), "float32", 0.1, 0, "uint8")]
    bare = [TensorInfo("y", (3,), "float32")]
    assert steps_apart([expected], [expected + np.array([0, 0.2, -0.1])], scaled) == pytest.approx(
        2
    )
    assert steps_apart([expected], [expected + np.array([0, 0.02, 0])], bare) == pytest.approx(2)
    assert steps_apart([expected], [expected[:2]], scaled) is None


def test_ratios_are_to_the_first_of_as_many_threads() -> None:
    results = [
        Result("a", "planish", 1, Timing(5, 4, 3)),
        Result("a", "other", 1, Timing(7, 6, 3)),
        Result("a", "third", 1),
        Result("a", "planish", 2, Timing(3, 2, 3)),
        Result("a", "other", 2, Timing(1, 1, 3)),
    ]
    assert ratios(results) == [1, 1.5, None, 1, 0.5]


def test_several_inputs_of_other_dtypes(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    examples = (torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 5))
    graph = planish.capture(Lookup().eval(), examples)
    settings = Settings(("onnxruntime", "openvino"), "x86-64-v3", batch=2, runs=1)
    own, *others = measure([Subject("lookup", graph)], settings, tmp_path)
    assert own.timing is not None
    assert [(other.reason, round(other.apart or 0)) for other in others] == [(None, 0), (None, 0)]

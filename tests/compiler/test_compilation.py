"""compile says what it can't take, and calibrates and runs what it can."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import planish
from planish import passes
from planish.ir import DataError, ModelError, OptionError, PipelineError


@pytest.fixture(scope="module")
def graph() -> planish.Graph:
    return planish.capture(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 5}, "a target is a name or a Target, not 5"),
        ({"target": "x86"}, "unknown target 'x86'"),
        ({"batch": 0}, "batch must be a whole number of at least 1"),
        ({"batch": True}, "batch must be a whole number of at least 1"),
        ({"threads": "2"}, "threads must be a whole number of at least 1"),
        ({"io": "bytes"}, "unknown io 'bytes'"),
        ({"database": 3}, "a int is no tuning database; give the folder that planish.tune filled"),
        ({"database": b"folder"}, "a bytes is no tuning database"),
    ],
)
def test_bad_options(graph: planish.Graph, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as error:
        planish.compile(graph, **{"target": "x86-64-v3", **options})
    assert message in str(error.value)


def test_a_module_is_no_graph() -> None:
    with pytest.raises(ModelError, match="capture the model first"):
        planish.compile(nn.Linear(3, 3))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="capture the model first"):
        planish.Pipeline([passes.FoldBatchNorm()]).run(nn.Linear(3, 3))  # type: ignore[arg-type]


def test_examples_must_have_the_dtype_that_the_model_computes_in() -> None:
    with pytest.raises(ModelError, match="can't compute on the example inputs"):
        planish.capture(nn.Linear(4, 4), torch.zeros(1, 4, dtype=torch.int64))


@pytest.mark.parametrize("device", ["gpu", 3.5, "cuda:99"])
def test_a_device_that_is_not_there(graph: planish.Graph, device: Any) -> None:
    with pytest.raises(OptionError, match="device"):
        planish.Pipeline([passes.FoldBatchNorm()]).run(graph, device=device)


def test_teacher_hooks_must_go_first(graph: planish.Graph) -> None:
    hooked = planish.Pipeline([passes.InsertTeacherHooks()]).run(graph).graph
    with pytest.raises(PipelineError, match="run remove-teacher-hooks first"):
        planish.compile(hooked)


def test_a_quantized_graph_is_lowered_on_the_way(graph: planish.Graph) -> None:
    data = [torch.randn(8, 4)]
    quantized = planish.Pipeline([passes.InsertQDQ()]).run(graph, data).graph
    artifact = planish.compile(quantized, "x86-64-v3", batch=8, strict=True)
    lowered = passes.LowerToInteger().run(quantized.copy(), passes.Context()).graph
    assert np.array_equal(artifact(data[0].numpy()), lowered(data[0]).numpy())
    assert artifact.manifest["history"][-1]["name"] == "lower-to-integer"


@pytest.mark.parametrize(
    "labels", [torch.full((8,), 9), torch.full((8,), -1), torch.rand(8), torch.zeros(8, 3).long()]
)
def test_validation_labels_must_be_classes(graph: planish.Graph, labels: torch.Tensor) -> None:
    validation = [(torch.randn(8, 4), labels)]
    with pytest.raises(DataError, match="labels"):
        planish.Pipeline([passes.FoldBatchNorm()]).run(graph, validation=validation)


def test_a_scalar_input_calibrates() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.conv(x) * y

    example = (torch.randn(1, 3, 4, 4), torch.tensor(2.0))
    graph = planish.capture(Scaled(), example)
    result = planish.Pipeline([passes.InsertQDQ()]).run(graph, [example])
    torch.testing.assert_close(result.graph(*example), graph(*example), atol=0.05, rtol=0)

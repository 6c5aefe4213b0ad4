"""compile says what it can't take, and calibrates and runs what it can."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import planish
from planish import passes
from planish.ir import DataError, ModelError, OptionError, PipelineError, TargetError


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
        ({"cross_compiler": ["g++"]}, "cross_compiler must be a path, not ['g++']"),
        ({"cross_compiler": ""}, "cross_compiler must be a path, not ''"),
        ({"sysroot": 5}, "sysroot must be a path, not 5"),
        ({"batch": 10**9}, "GB, and kernels address 2; compile for a smaller batch"),
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


@pytest.mark.parametrize("target", ["x86-64-v3", "armv8", "cuda-sm80"])
def test_more_than_kernels_address(target: str) -> None:
    convolution = planish.capture(nn.Conv2d(3, 8, 3), torch.zeros(2, 3, 12, 12))
    data = [torch.rand(2, 3, 12, 12)]
    quantized = planish.Pipeline([passes.InsertQDQ()]).run(convolution, data).graph
    with pytest.raises(OptionError, match=r"takes 1\d+\.\d GB, and kernels address 2"):
        planish.compile(quantized, target, batch=10**7)


@pytest.fixture
def tool(tmp_path: Path) -> Callable[[str], Path]:
    """A compiler that does what the lines of a shell script say."""

    def make(script: str) -> Path:
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 0", "wrote no library"),
        ("exit 3", "failed: it said nothing"),
        ("echo ld: file in wrong format: error >&2; exit 1", "failed: ld: file in wrong format"),
        ("echo first; echo the last line; exit 1", "failed: the last line"),
    ],
)
def test_a_cross_compiler_that_does_not_link(
    graph: planish.Graph, tool: Callable[[str], Path], script: str, message: str
) -> None:
    with pytest.raises(TargetError) as error:
        planish.compile(graph, "armv8", cross_compiler=tool(script))
    assert message in str(error.value)


def test_no_cross_compiler_or_sysroot(graph: planish.Graph, tool: Callable[[str], Path]) -> None:
    with pytest.raises(
        TargetError, match=r"no compiler 'nowhere-g\+\+'.*apt install g\+\+-aarch64"
    ):
        planish.compile(graph, "armv8", cross_compiler="nowhere-g++")
    with pytest.raises(TargetError, match="the sysroot 'nowhere' is no folder"):
        planish.compile(graph, "armv8", cross_compiler=tool("exit 0"), sysroot="nowhere")

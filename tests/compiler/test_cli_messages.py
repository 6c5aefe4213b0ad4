"""What the commands say: missing packages, float operators, several targets, pipes."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import planish
from planish import Graph, passes
from planish.backends import matching
from planish.cli.app import app
from planish.cli.compile import LISTED
from planish.cli.inspect import BAR, _fitted_layers

# Runs the command line where these modules are not installed: the words follow.
WITHOUT = """
import sys
hidden = sys.argv.pop(1).split(",")
sys.modules.update(dict.fromkeys(hidden))
from planish.cli import main
main()
"""


def without(modules: str, *words: str | Path) -> str:
    """Return the only line that a command prints where modules are missing."""
    command = [sys.executable, "-c", WITHOUT, modules, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def folder(graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    graph.save(tmp_path / "small.graph")
    return tmp_path


@pytest.mark.parametrize(
    ("modules", "words", "package"),
    [
        ("torch", "inspect small.graph", "torch"),
        ("torch,tvm,tvm_ffi,onnx", "capture m.py:Net -o g --input-shape 1x3", "torch"),
        ("torch,tvm,tvm_ffi,onnx", "compile small.graph -o a --target x86-64-v3", "torch"),
        ("tvm,tvm_ffi", "compile small.graph -o a --target x86-64-v3", "apache-tvm"),
        ("onnx", "export small.graph -o x.onnx", "onnx"),
        ("onnx", "inspect x.onnx", "onnx"),
    ],
)
def test_a_missing_package(folder: Path, modules: str, words: str, package: str) -> None:
    (folder / "x.onnx").touch()
    line = without(modules, *words.split())
    assert line.startswith(f"planish: the package {package}")
    assert f"; pip install '{package}" in line
    assert not (folder / "a").exists()


def test_run_without_tvm(graph: Graph, folder: Path) -> None:
    planish.compile(graph, "x86-64-v3").save(folder / "a.planish")
    line = without("torch,tvm,tvm_ffi,onnx", "run", "a.planish", "-i", "x.npy", "-o", "y.npy")
    assert line == (
        "planish: the package apache-tvm-ffi is not installed; it calls compiled kernels; "
        "pip install 'apache-tvm-ffi<0.1.15,>=0.1.14'"
    )


def test_another_missing_module_is_no_users_mistake(folder: Path) -> None:
    del folder
    command = [sys.executable, "-c", WITHOUT, "planish.passes.registry", "passes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


class _Norms(nn.Sequential):
    """A convolution, and operators without an integer form behind it."""

    def __init__(self, count: int) -> None:
        norms = [nn.GroupNorm(2, 8) for _ in range(count)]
        super().__init__(nn.Conv2d(3, 8, 1), *norms)


def compiled(graph: Graph, *words: str) -> list[str]:
    """Return what `compile` of a graph prints, line by line."""
    graph.save("g.graph")
    result = CliRunner().invoke(app, ["compile", "g.graph", "-o", "a.planish", *words])
    assert result.exit_code == 0, result.output
    return result.stderr.splitlines()


@pytest.mark.usefixtures("folder")
def test_a_graph_that_is_not_quantized(graph: Graph) -> None:
    lines = compiled(graph, "--target", "x86-64-v3")
    assert lines[-1] == (
        f"  float: nothing is quantized, all {len(graph.calls)} operators compute in float; "
        "quantize with `planish compress` and a recipe with insert-qdq"
    )
    assert sum("float" in line for line in lines) == 1


@pytest.mark.usefixtures("folder")
def test_many_float_operators_are_counted() -> None:
    graph = planish.capture(_Norms(LISTED + 2), torch.zeros(1, 3, 4, 4))
    images = np.random.default_rng(0).random((2, 3, 4, 4), dtype=np.float32)
    lines = compiled(planish.Pipeline([passes.InsertQDQ()]).run(graph, [images]).graph)
    floats = [line for line in lines if line.startswith("  float: ")]
    assert len(floats) == LISTED + 1
    assert floats[0].startswith("  float: group_norm 1: ")
    assert floats[-1] == f"  float: 2 more, {LISTED + 2} in all; --json lists them"


class _Deep(nn.Module):
    """A layer whose name is longer than a narrow terminal."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.add_module(name, nn.Conv2d(3, 8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (conv,) = self.children()
        return conv(x)


@pytest.mark.usefixtures("folder")
def test_nothing_is_cut_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = "encoder_" * 12
    planish.capture(_Deep(name), torch.zeros(1, 3, 4, 4)).save("g.graph")
    assert f" {name}   conv2d " in CliRunner().invoke(app, ["inspect", "g.graph"]).stdout
    long = f"{'long' * 40}.graph"
    (line,) = CliRunner().invoke(app, ["capture", "g.graph", "-o", long]).stderr.splitlines()
    assert line.startswith(f"wrote {long}: ")


@pytest.mark.parametrize(("columns", "bar"), [(100, BAR), (80, 8), (71, 0)])
def test_on_a_terminal_the_bar_gives_way(columns: int, bar: int) -> None:
    name = "encoder.layers.0.self_attention"
    layer = {"name": name, "operator": "linear", "channels": 8, "macs": 1000}
    console = Console(width=columns, force_terminal=True, color_system=None, file=StringIO())
    console.print(_fitted_layers({"macs": 1000, "layers": [layer]}, console))
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert text.count("█") == bar
    assert name in text


@pytest.mark.usefixtures("folder")
def test_lines_about_one_of_several_targets_name_it(graph: Graph) -> None:
    text = "\n".join(compiled(graph, "--target", "x86-64-v3,armv8"))
    assert "\n  memory for x86-64-v3: " in text
    assert "for x86-64-v3" not in "\n".join(compiled(graph, "--target", "x86-64-v3")[1:])


@pytest.mark.usefixtures("folder")
def test_after_compiling_for_gpus_alone(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nvidia.cuda_nvrtc", reason="nvidia-cuda-nvrtc-cu12 is not installed")
    monkeypatch.setattr(matching, "compute_capability", lambda: None)
    lines = compiled(graph, "--target", "cuda-sm80")
    assert "  this machine can't run it; an emulator checks it without a GPU: docs/cuda.md" in lines

"""What the commands say: missing packages, float operators, several targets, pipes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import planish
from planish import Graph

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

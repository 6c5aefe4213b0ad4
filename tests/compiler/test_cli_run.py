"""The files that `planish run` writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import planish
from planish.cli.app import app


class _Two(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(x), x + x


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: inputs, and artifacts of one output and of two."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32))
    for name, module in (("one", nn.ReLU()), ("two", _Two())):
        graph = planish.capture(module, torch.zeros(2, 6))
        planish.compile(graph, "x86-64-v3").save(f"{name}.planish")
    return tmp_path


def run(artifact: str, output: str, inputs: str = "x.npy") -> Result:
    return CliRunner().invoke(app, ["run", artifact, "-i", inputs, "-o", output])


def test_one_output_as_npy(folder: Path) -> None:
    assert run("one.planish", "y.npy").exit_code == 0
    expected = np.maximum(np.load(folder / "x.npy"), 0)
    np.testing.assert_array_equal(np.load(folder / "y.npy"), expected)


@pytest.mark.parametrize("artifact", ["one.planish", "two.planish"])
def test_other_names_are_npz(folder: Path, artifact: str) -> None:
    assert run(artifact, "y.npz").exit_code == 0
    with np.load(folder / "y.npz") as arrays:
        assert len(arrays.files) == (1 if artifact == "one.planish" else 2)
        np.testing.assert_array_equal(arrays[arrays.files[0]], np.maximum(np.load("x.npy"), 0))


def test_two_outputs_are_no_npy(folder: Path) -> None:
    result = run("two.planish", "y.npy", inputs="is-not-read.npy")
    assert result.exit_code == 2
    assert "a .npy file holds one array, and the artifact has 2 outputs: " in result.stderr
    assert result.stderr.strip().endswith("; at y.npy; write them to y.npz")
    assert not (folder / "y.npy").exists()

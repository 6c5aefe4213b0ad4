"""Models that torch.export refuses: the cure fits the reason, and torch's own log is not shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import planish
from planish import PlanishError
from planish.cli.app import app

TOKENS = """
from torch import nn

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x):
        return self.layer(self.embedding(x))
"""


class _OneHot(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(4)[x]


class _Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "cure"),
    [
        (nn.Embedding(50, 8), "give integer example inputs there, such as torch.zeros(1, 16, "),
        (_OneHot(), "give integer example inputs there"),
        (nn.Linear(5, 3), "give example inputs of the shapes and dtypes that the model takes"),
        (_Branch(), "rewrite that line without data-dependent Python"),
    ],
)
def test_the_cure_fits(model: nn.Module, cure: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PlanishError) as error:
        planish.capture(model, torch.zeros(1, 16))
    assert str(error.value.cure).startswith(cure)
    assert "fake_tensor.py" not in capfd.readouterr().err


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokens.py").write_text(TOKENS)
    words = ["capture", "tokens.py:Tokens", "-o", "t.graph", "--input-shape"]
    result = CliRunner().invoke(app, [*words, "1x16"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.endswith("; give integers there: --input-shape 1x16:int64")
    assert CliRunner().invoke(app, [*words, "1x16:int64"]).exit_code == 0

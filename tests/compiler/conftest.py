"""A small network with everything that the passes look for, and data for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import planish
from planish.ir import Graph

MODEL = '''"""Models for the command line."""

import torch
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        print("a model may talk")
        x = torch.relu(self.bn(self.conv(x)))
        return self.head(x.mean((2, 3)))


class DataDependent(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


def failing():
    raise ValueError("boom")


def with_examples():
    return Small(), torch.zeros(1, 3, 8, 8)


number = 3
'''


class Small(nn.Module):
    """Two convolutions with a residual connection, and a classifier of ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(self.conv(x) + x)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="session")
def captured() -> Graph:
    """The small network; don't edit it, tests share it."""
    torch.manual_seed(0)
    return planish.capture(Small(), torch.zeros(2, 3, 8, 8))


@pytest.fixture
def graph(captured: Graph) -> Graph:
    """A copy of the small network."""
    return captured.copy()


@pytest.fixture(scope="session")
def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Three labelled batches of sixteen."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.rand(16, 3, 8, 8, generator=generator),
            torch.randint(0, 10, (16,), generator=generator),
        )
        for _ in range(3)
    ]


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """An .npz file with forty labelled samples."""
    random = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    np.savez(
        path, x=random.random((40, 3, 8, 8), dtype=np.float32), labels=random.integers(0, 10, 40)
    )
    return path


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A Python file with models for the command line."""
    path = tmp_path / "models.py"
    path.write_text(MODEL)
    return path


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, str], Path]:
    """`save(name, text)` writes a file and returns its path."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write

"""A small task to train on: four directions of stripes in noise."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from planish import capture
from planish.ir import Graph, verify
from planish.passes import Context, Train


class Net(nn.Module):
    """[n, 1, 8, 8] to logits [n, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv2(F.relu(self.bn(self.conv1(x)))))
        return self.fc(self.drop(F.adaptive_avg_pool2d(x, 1).flatten(1)))


@cache
def _captured(seed: int) -> Graph:
    torch.manual_seed(seed)
    return capture(Net(), (torch.zeros(1, 1, 8, 8),))


class Task:
    """The network, its data, and a training that is checked."""

    model = Net

    def net(self, seed: int = 0) -> Graph:
        """An untrained network; equal seeds, equal weights."""
        return _captured(seed).copy()

    def samples(self, count: int = 128, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [n, 1, 8, 8] and class numbers [n]."""
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 4, (count,), generator=generator)
        line = (torch.arange(8) % 2).float()
        rows, columns = line[:, None].expand(8, 8), line[None, :].expand(8, 8)
        diagonal = ((torch.arange(8)[:, None] + torch.arange(8)) // 2 % 2).float()
        patterns = torch.stack([rows, columns, diagonal, diagonal.flip(1)])
        noise = 0.2 * torch.randn(count, 8, 8, generator=generator)
        return (patterns[labels] + noise)[:, None], labels

    def data(self, count: int = 128, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The samples in batches of 16."""
        images, labels = self.samples(count, seed)
        return list(zip(images.split(16), labels.split(16), strict=True))

    def accuracy(self, graph: Graph) -> float:
        """Share of samples not trained on that are classified right."""
        images, labels = self.samples(seed=1)
        return float((graph(images).argmax(1) == labels).float().mean())

    def run(self, graph: Graph, item: Train, **context: Any) -> dict[str, Any]:
        """Train in place; return the notes."""
        result = item.run(graph, Context(**{"data": self.data(), **context}))
        verify(graph)
        assert result.changed
        assert not graph.training
        return result.notes


@pytest.fixture
def task() -> Task:
    return Task()

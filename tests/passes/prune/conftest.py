"""A small network with every kind of coupling, to be pruned."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from planish import capture
from planish.ir import Graph, verify
from planish.passes import Context, PassResult, PruneChannels


class Small(nn.Module):
    """A stem, a residual block, a depthwise convolution, a concatenation, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.a = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24))
        self.b = nn.Sequential(nn.Conv2d(24, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.depthwise = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(16)
        self.side = nn.Sequential(nn.Conv2d(16, 8, 1, stride=2), nn.BatchNorm2d(8))
        self.hidden = nn.Linear(24 * 4, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, 5]."""
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.b(torch.relu(self.a(x))))
        y = torch.cat([self.depthwise_norm(self.depthwise(x)), self.side(x)], 1)
        y = nn.functional.avg_pool2d(torch.relu(y), 2)
        return self.head(torch.relu(self.hidden(y.flatten(1))))


@pytest.fixture(scope="session")
def whole() -> Graph:
    torch.manual_seed(0)
    model = Small().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return capture(model, torch.zeros(2, 3, 8, 8))


@pytest.fixture
def graph(whole: Graph) -> Graph:
    return whole.copy()


@pytest.fixture(scope="session")
def labelled() -> list[tuple[Tensor, Tensor]]:
    """Five batches of eight."""
    draw = torch.Generator().manual_seed(5)
    return [
        (torch.randn(8, 3, 8, 8, generator=draw), torch.randint(0, 5, (8,), generator=draw))
        for _ in range(5)
    ]


@pytest.fixture(scope="session")
def prune(labelled: list[tuple[Tensor, Tensor]]) -> Callable[..., PassResult]:
    """`prune(graph, macs=0.5)`: run the pass, and check the graph and the claim of a change."""

    def run(graph: Graph, **options: Any) -> PassResult:
        before = graph.fingerprint()
        result = PruneChannels(**options).run(graph, Context(data=labelled))
        verify(result.graph)
        assert result.changed == (result.graph.fingerprint() != before)
        return result

    return run

"""Random small networks, for tests that must hold on any network."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from planish import capture
from planish.ir import Graph


class RandomNetwork(nn.Module):
    """Convolutions of all kinds with batch norms, activations, residuals, a concatenation, a head.

    Everything is drawn from the seed; images are 3 x 9 x 8.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def draw(*choices: int) -> int:
            return choices[int(torch.randint(len(choices), (1,), generator=generator))]

        torch.manual_seed(seed)
        width = draw(4, 6, 8)
        self.residual, self.concatenate = draw(0, 1), draw(0, 1)
        self.activation = [nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.Sigmoid()][draw(0, 1, 2, 3)]
        self.stem = nn.Conv2d(3, width, draw(1, 3), draw(1, 2), draw(0, 1), bias=bool(draw(0, 1)))
        self.norm = nn.BatchNorm2d(width)
        groups = draw(1, 2, width)
        self.middle = nn.Conv2d(width, width, 3, padding=1, groups=groups, dilation=1)
        self.middle_norm = nn.BatchNorm2d(width, affine=bool(draw(0, 1)))
        self.pool = [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.MaxPool2d(3, 1, 1)][draw(0, 1, 2)]
        head = width * (2 if self.concatenate else 1)
        self.head_norm = nn.BatchNorm1d(head)
        self.head = nn.Linear(head, 5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                if module.affine:
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.uniform_(module.bias, -0.5, 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [n, 5]."""
        x = self.activation(self.norm(self.stem(x)))
        y = self.middle_norm(self.middle(x))
        y = torch.relu(x + y) if self.residual else torch.relu(y)
        y = torch.cat([x, y], 1) if self.concatenate else y
        y = self.pool(y).mean((2, 3))
        return self.head(self.head_norm(y))


@pytest.fixture(scope="session")
def random_model() -> Callable[[int], nn.Module]:
    """`random_model(seed)`: a random network in evaluation mode."""
    return lambda seed: RandomNetwork(seed).eval()


@pytest.fixture(scope="session")
def random_graph() -> Callable[[int], Graph]:
    """`random_graph(seed)`: the canonical graph of a random network."""
    return lambda seed: capture(RandomNetwork(seed).eval(), torch.zeros(1, 3, 9, 8))


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """16 random images, [16, 3, 9, 8]."""
    return torch.rand(16, 3, 9, 8, generator=torch.Generator().manual_seed(7))

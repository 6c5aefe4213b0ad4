"""A small captured network for the tests of the graph."""

import pytest
import torch
from torch import nn

from planish import capture
from planish.ir import Graph


class Small(nn.Module):
    """Convolution, batch norm, residual, dropout, linear; two outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4 * 6 * 6, 2)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return features and logits."""
        features = torch.relu(self.bn(self.conv(image)))
        features = features + features
        return {"features": features, "logits": self.fc(self.drop(features).flatten(1))}


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture
def graph(model: Small) -> Graph:
    return capture(model, torch.zeros(1, 3, 6, 6))

"""1-D networks run as images; convolutions, pools, norms and upsampling of all kinds."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from planish import capture
from planish.ir import Graph
from planish.passes import Context, FoldBatchNorm


def signal_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(3, 4, 3, padding=1),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(4, 4, 3, padding="same", dilation=2, groups=2),
        nn.GELU(),
        nn.AvgPool1d(2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def test_a_network_of_signals(
    canonical: Callable[..., Graph], golden: Callable[[str, str], None]
) -> None:
    graph = canonical(signal_network(), torch.randn(2, 3, 8))
    golden("canonicalize_signals", graph.text())
    assert graph.attribute("0.weight").shape == (4, 3, 1, 3)
    assert graph.attribute("0.weight").requires_grad


def test_a_batch_norm_of_signals_folds(operators: Callable[[Graph], Counter[str]]) -> None:
    graph = capture(signal_network().eval(), torch.randn(2, 3, 8))
    folded = FoldBatchNorm().run(graph.copy(), Context())
    assert not folded.refused
    assert operators(folded.graph)["batch_norm"] == 0
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(folded.graph(x), graph(x))


class Signals(nn.Module):
    """What else signals go through."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.even, self.up = nn.Conv1d(3, 3, 4, padding="same"), nn.ConvTranspose1d(3, 3, 2, 2)
        self.ring = nn.Conv1d(3, 3, 3, padding=1, padding_mode="circular")
        self.mirror = nn.Conv1d(3, 3, 3, padding=1, padding_mode="reflect")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """x: [n, 3, 8]."""
        y = self.up(torch.sigmoid(self.even(x)) * self.even(x))
        pooled, _ = F.adaptive_max_pool1d(y, 3, return_indices=True)
        stretched = F.interpolate(y, scale_factor=2, mode="linear").mean(-1)
        return torch.cat([self.ring(x), self.mirror(x)], 1), pooled, stretched


def test_signals(canonical: Callable[..., Graph]) -> None:
    canonical(Signals(), torch.randn(2, 3, 8))


IMAGES: dict[str, Callable[[torch.Tensor], Any]] = {
    "nearest": lambda x: (F.interpolate(x, scale_factor=2), F.interpolate(x, size=(9, 5))),
    "bilinear": lambda x: (
        F.interpolate(x, scale_factor=2, mode="bilinear"),
        F.interpolate(x, size=(5, 9), mode="bilinear", align_corners=True),
        F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    ),
    "no change of size": lambda x: F.interpolate(x, size=(7, 7)) + F.adaptive_avg_pool2d(x, 7),
    "adaptive": lambda x: (F.adaptive_max_pool2d(x, 3), F.adaptive_max_pool2d(x, 1)),
    "pools": lambda x: (F.max_pool2d(x, 2), torch.cat([x, F.max_pool2d(x, 5, 1, 2)], 1)),
    "shuffles": lambda x: F.pixel_shuffle(F.channel_shuffle(x, 2), 2),
    "norms": lambda x: (F.group_norm(x, 2), F.instance_norm(x), F.local_response_norm(x, 2)),
    "pads": lambda x: (F.pad(x, (1, 2, 0, 3), mode="circular"), F.pad(x, (0, 0, 0, 0)) * 2),
    "mish": lambda x: F.mish(x) + F.silu(x) + F.hardswish(x),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(
    name: str, canonical: Callable[..., Graph], function: Callable[..., nn.Module]
) -> None:
    canonical(function(IMAGES[name]), torch.randn(2, 4, 7, 7))


class Convolutions(nn.Module):
    """Paddings of all kinds, a transposed convolution, norms with statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mirror = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
        self.edge = nn.Conv2d(3, 3, 3, padding=1, padding_mode="replicate")
        self.even = nn.Conv2d(3, 3, 2, padding="same")
        self.up, self.head = nn.ConvTranspose2d(3, 4, 2, 2), nn.Conv2d(4, 2, 1)
        self.norm = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [n, 3, 6, 6]."""
        return self.head(self.up(self.norm(self.mirror(x) + self.edge(x) + self.even(x))))


def test_convolutions(
    canonical: Callable[..., Graph], operators: Callable[[Graph], Counter[str]]
) -> None:
    found = operators(canonical(Convolutions(), torch.randn(2, 3, 6, 6)))
    assert found["batch_norm"] == 1
    assert found["constant_pad_nd"] == 1

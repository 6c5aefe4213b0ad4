"""Constants are computed at capture; masks hold no infinities; parameters stay parameters."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import nn

from planish.ir import Graph


class Positions(nn.Module):
    """Sine positions, computed anew in every call."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [n, 4, 6]."""
        steps = torch.arange(x.shape[1]).float()[:, None]
        rates = torch.exp(torch.arange(0, 3) * -1.5)
        return x + torch.cat([torch.sin(steps * rates), torch.cos(steps * rates)], 1)


def test_what_depends_on_no_input_is_stored(
    canonical: Callable[..., Graph], golden: Callable[[str, str], None]
) -> None:
    graph = canonical(Positions(), torch.randn(2, 4, 6))
    golden("canonicalize_constants", graph.text())
    assert not graph.parameters()


class Causal(nn.Module):
    """Attention's mask, filled with -inf, stored as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
        self.mask: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [n, 4, 4]."""
        return (x + self.mask).softmax(-1)


def test_infinite_masks_become_large(canonical: Callable[..., Graph]) -> None:
    graph = canonical(Causal(), torch.randn(2, 4, 4))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in graph.attributes.values())


def test_masks_in_front_of_a_softmax_are_added(
    canonical: Callable[..., Graph],
    function: Callable[..., nn.Module],
    operators: Callable[[Graph], Counter[str]],
) -> None:
    hidden = torch.ones(4, 4, dtype=torch.bool).triu(1)
    model = function(lambda x: x.masked_fill(hidden, -torch.inf).view(-1, 4).softmax(-1))
    found = operators(canonical(model, torch.randn(2, 4, 4)))
    assert found == {"add.Tensor": 1, "reshape": 1, "softmax.int": 1}


class Normed(nn.Module):
    """Weight and spectral normalization: weights computed from parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
        self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [n, 3, 5, 5]."""
        return self.linear(self.conv(x).mean((2, 3)))


def test_computed_weights_stay_trainable(canonical: Callable[..., Graph]) -> None:
    graph = canonical(Normed(), torch.randn(2, 3, 5, 5))
    assert len(graph.parameters()) == 5
    graph(torch.randn(2, 3, 5, 5)).sum().backward()
    assert all(parameter.grad is not None for parameter in graph.parameters())

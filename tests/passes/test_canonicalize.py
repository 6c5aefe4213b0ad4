"""canonicalize: every operator one way, the same numbers, and nothing left to do afterwards."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from planish import capture
from planish.ir import Graph, ModelError, OperatorError, verify
from planish.passes import Canonicalize, Context


class Lambda(nn.Module):
    """A module made of a function, with one weight to use."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 4, 3, 3))
        self.function = function

    def forward(self, x: torch.Tensor) -> object:
        """Apply the function."""
        return self.function(x, self.weight)


def _negate_through_view(y: torch.Tensor) -> torch.Tensor:
    flat = y.flatten(2)
    y.transpose(1, 2)[:, 1:].neg_()
    return flat + y.flatten(2)


CASES: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "in_place": lambda x, w: F.relu(F.conv2d(x, w), inplace=True).add_(1.0) * 2.0,
    "in_place_read_later": lambda x, w: (lambda y: (F.relu_(y), y)[1] + y)(F.conv2d(x, w)),
    "in_place_on_slice": lambda x, w: (lambda y: (y[:, 1:3].mul_(2.0), y[:, 2].zero_(), y)[2])(
        x + 1.0
    ),
    "in_place_on_view": lambda x, w: (lambda y: (y.view(-1).add_(1.0), y.permute(0, 2, 1, 3))[1])(
        x * 2.0
    ),
    "in_place_read_through_view": lambda x, w: _negate_through_view(x * 2.0),
    "relu6": lambda x, w: F.relu6(F.conv2d(x, w, padding=1)) + F.hardtanh(x, -1.0, 2.0),
    "clamps": lambda x, w: torch.clamp_min(x, 0.0) + torch.clamp_max(x, 1.0) + x.clamp(min=0),
    "padding_word": lambda x, w: F.conv2d(x, w, padding="same") + F.conv2d(x, w, padding=(1, 1)),
    "flatten_by_view": lambda x, w: x.view(x.shape[0], -1),
    "flatten_by_reshape": lambda x, w: x.reshape(x.size(0), 4 * 6 * 6),
    "channel_shuffle": lambda x, w: (
        x.view(x.shape[0], 2, 2, 6, 6).transpose(1, 2).reshape(x.shape[0], 4, 6, 6)
    ),
    "mean": lambda x, w: x.mean((2, 3)) + x.mean((-1, -2), keepdim=True).flatten(1),
    "chunk": lambda x, w: torch.cat(list(reversed(x.chunk(2, 1))), 1),
    "split": lambda x, w: x.split([1, 3], 1),
    "no_ops": lambda x, w: x.contiguous().clone().detach().to(torch.float32) + x.view(x.shape),
    "pads": lambda x, w: F.conv2d(F.pad(x, (1, 1, 2, 2)), w) + F.conv2d(F.pad(x, (2, 0, 2, 2)), w),
    "pool_defaults": lambda x, w: F.max_pool2d(x, 2) + F.avg_pool2d(x, (2, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_same_numbers_and_idempotent(name: str, golden: Callable[[str, str], None]) -> None:
    model = Lambda(CASES[name])
    raw = capture(model, torch.zeros(1, 4, 6, 6), canonicalize=False)
    graph = Canonicalize().run(raw.copy(), Context()).graph
    verify(graph)
    golden(f"canonicalize_{name}", f"{raw.text()}\n{graph.text()}")
    x = torch.randn(3, 4, 6, 6)
    torch.testing.assert_close(graph(x), model(x.clone()))
    before = graph.fingerprint()
    again = Canonicalize().run(graph, Context())
    assert not again.changed
    assert again.graph.fingerprint() == before


@pytest.mark.parametrize("seed", range(6))
def test_random_networks(
    seed: int,
    random_model: Callable[[int], nn.Module],
    random_graph: Callable[[int], Graph],
    images: torch.Tensor,
) -> None:
    graph = random_graph(seed)
    verify(graph)
    torch.testing.assert_close(graph(images), random_model(seed)(images))


class ByHand(nn.Module):
    """Linear layers spelled as matrix products."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.bias = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [n, 5]."""
        return torch.addmm(self.bias, x, self.weight.t()) + x @ self.weight.T


def test_linear_by_hand(golden: Callable[[str, str], None]) -> None:
    graph = capture(ByHand(), torch.zeros(1, 4))
    golden("canonicalize_linear_by_hand", graph.text())
    x = torch.randn(3, 4)
    torch.testing.assert_close(graph(x), ByHand()(x))


def test_in_place_on_an_expanded_view_is_refused() -> None:
    model = Lambda(lambda x, w: (lambda y: (y.expand_as(x).add_(1.0), y)[1])(x[:, :1] * 2.0))
    with pytest.raises((OperatorError, ModelError), match=r"in-place|single memory location"):
        capture(model, torch.zeros(1, 4, 6, 6))

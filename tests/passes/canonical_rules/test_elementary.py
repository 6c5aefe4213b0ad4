"""Arithmetic, reductions, movement, indexing, creation: the numbers of eager torch."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from planish.ir import Graph

SLOPES = torch.tensor([0.2, 0.1, 0.3, 0.4])
MASK = torch.tensor([True, False, True, False])
CASES: dict[str, Callable[[torch.Tensor], Any]] = {
    "numbers": lambda x: (1 - x, 2 / (x.abs() + 1), 2**x, x + 0, x * 1.0, x.add(x, alpha=2)),
    "powers": lambda x: (x * x, x.square(), x.abs() ** 0.5, (x.abs() + 1) ** -0.5),
    "compound": lambda x: (torch.addcmul(x, x, x, value=2), x.lerp(x + 1, 0.3)),
    "scalars": lambda x: (x * torch.tensor(2.0), torch.maximum(x, torch.tensor(0.3))),
    "reductions": lambda x: (x.mean(-1), x.sum((1, 2)), x.amax(-1), x.max(-1)[0], x.max(-1)[1]),
    "spread": lambda x: (x.std(-1), x.var(-1, unbiased=False), torch.var_mean(x, 1, keepdim=True)),
    "norms": lambda x: (F.normalize(x, dim=-1), x.norm(dim=1), x.norm(p=1, dim=1)),
    "activations": lambda x: (
        F.glu(x),
        F.prelu(x, x.new_tensor([0.2, 0.1, 0.3, 0.4])),
        F.softsign(x),
    ),
    "pieces": lambda x: (torch.stack(x.unbind(1), 2), x.split([1, 3], 1), x.tensor_split(2, 2)),
    "axes": lambda x: (x.movedim(1, 2), x.mT, x.swapaxes(0, 1), x.unflatten(1, (2, 2)).squeeze()),
    "repeats": lambda x: (x.repeat(1, 2, 1), x.repeat_interleave(2, 1), x[:, :1].expand(-1, 3, -1)),
    "rolls": lambda x: (x.roll(1, 2), x.roll((1, -1), (1, 2)), x.flip(1), x.roll(4, 1)),
    "narrow": lambda x: (x.narrow(1, 1, 2), x[:, -1], x[:, ::2], x[..., None, 1:]),
    "indices": lambda x: (x[:, [0, 2]], x[:, [0, 1], [2, 3]], x[:, [1, 2, 3]]),
    "sizes": lambda x: (x.reshape(x.shape[0] * 2, -1), x.view(-1), x.flatten(0, 1), x.flatten(1)),
    "created": lambda x: (x[:, 0] + x.new_full((x.shape[0], 1), 2.0), torch.ones(4) - x),
    "zeros": lambda x: torch.cat([torch.zeros_like(x), x], 1),
    "masks": lambda x: (
        x.masked_fill(MASK, 3.0),
        x.masked_fill(MASK, 0.0),
        torch.where(x > 0, x, 2.0),
    ),
    "logic": lambda x: (
        (x > 0) & (x < 1),
        ~(x > 0) | MASK,
        (x > 0) & torch.ones(4, dtype=torch.bool),
    ),
    "casts": lambda x: (x.double().float(), x.type_as(x), x.to(torch.float32), x.long()),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_eager(
    name: str, canonical: Callable[..., Graph], function: Callable[..., nn.Module]
) -> None:
    canonical(function(CASES[name]), torch.randn(2, 4, 4))


def test_what_adds_nothing_goes(
    canonical: Callable[..., Graph],
    function: Callable[..., nn.Module],
    operators: Callable[[Graph], Counter[str]],
) -> None:
    model = function(lambda x: F.relu((x + 0) * 1 + torch.zeros(4)).roll(0, 1).repeat(1, 1))
    assert operators(canonical(model, torch.randn(2, 4))) == {"relu": 1}


def test_chains_of_views_are_one_view(
    canonical: Callable[..., Graph],
    function: Callable[..., nn.Module],
    operators: Callable[[Graph], Counter[str]],
) -> None:
    model = function(lambda x: x.permute(0, 2, 1).permute(0, 2, 1).unsqueeze(1).view(-1, 2, 2, 4))
    assert operators(canonical(model, torch.randn(2, 4, 4))) == {"reshape": 1}


def test_consecutive_positions_are_a_slice_and_all_of_them_backwards_a_flip(
    canonical: Callable[..., Graph],
    function: Callable[..., nn.Module],
    operators: Callable[[Graph], Counter[str]],
) -> None:
    model = function(lambda x: (x[:, [1, 2]], x[:, [3, 2, 1, 0]], x[:, [0, 3]]))
    found = operators(canonical(model, torch.randn(2, 4)))
    assert found == {"slice.Tensor": 1, "flip": 1, "index_select": 1}


class Table(nn.Module):
    """A stored table read at stored positions, as relative positions are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(5, 3))
        self.register_buffer("index", torch.tensor([[0, 1], [4, 2]]))
        self.index: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add table[index], [3, 2, 2], to x."""
        return x + self.table[self.index.view(-1)].view(2, 2, 3).permute(2, 0, 1)


def test_positions_of_a_stored_table_stay_trainable(
    canonical: Callable[..., Graph], golden: Callable[[str, str], None]
) -> None:
    graph = canonical(Table(), torch.randn(2, 3, 2, 2))
    golden("canonicalize_table", graph.text())
    graph(torch.randn(2, 3, 2, 2)).sum().backward()
    (table,) = graph.parameters()
    assert table.grad is not None
    assert int((table.grad == 0).all(1).sum()) == 1  # the row that no position names

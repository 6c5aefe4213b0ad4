"""Operators that come down to others: sorting, computed positions, what torch takes apart."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import planish
from planish.ir import Graph, OperatorError

# [batch, 4, 4]
ROWS: dict[str, Callable[[torch.Tensor], Any]] = {
    "sorted": lambda x: (x.sort(1)[0], *x.sort(-1, descending=True), x.argsort(2)),
    "first": lambda x: (*x.topk(3, 1), x.topk(2, -1, largest=False)[1]),
    "stable": lambda x: torch.sort((x * 2).round(), stable=True, dim=1),
    "functions": lambda x: (x.exp2(), (x.abs() + 1).log2(), x.erfc(), torch.hypot(x, x + 1)),
    "holes": lambda x: (x.isnan(), x.nan_to_num(), torch.clamp(x, x - 1, x + 1), x.nansum(1)),
    "cut": lambda x: (F.hardshrink(x), F.softshrink(x), x.frac(), x.sinc(), x.sigmoid().logit(0.1)),
    "numbers": lambda x: (x.fmod(0.3), x // 0.3, x.int() & 3, x.int() | 1, x.heaviside(x)),
    "any": lambda x: ((x > 0).any(1), (x > 0).all(-1), (x > 0).any(), x.count_nonzero(1)),
    "extremes": lambda x: torch.aminmax(x, dim=1, keepdim=True),
    "alike": lambda x: (F.cosine_similarity(x, x + 1), F.pairwise_distance(x, x * 2)),
    "computed": lambda x: (x[:, x[0, 0].argsort()], x[:, x[0, 0].argsort(), x[0, 1].argsort()]),
    "apart": lambda x: x[:, :, None][:, x[0, 0].argsort(), :, x[0, 1].argsort()],
    "along": lambda x: (torch.take_along_dim(x, x.argsort(1), 1), torch.take(x[0], x[0].argsort())),
    "placed": lambda x: (
        x.scatter(1, x.argsort(1), 0.5),
        x.scatter_add(1, x.argsort(1), x),
        x[0].index_add(1, torch.tensor([0, 2]), torch.ones(4, 2), alpha=2),
    ),
    "windows": lambda x: (x.unfold(1, 3, 1), x.unfold(-1, 2, 2), x[:, 0].unfold(-1, 4, 1)),
    "turned": lambda x: (
        x.rot90(1, [1, 2]),
        torch.diag_embed(x),
        x[0].diag(),
        x[0, 0].outer(x[0, 1]),
    ),
    "one hot": lambda x: F.one_hot(x.argmax(1), 5),
    "resampled": lambda x: F.interpolate(x, scale_factor=2),
}
# [batch, 2, 6, 6]
IMAGES: dict[str, Callable[[torch.Tensor], Any]] = {
    "bicubic": lambda x: F.interpolate(x, scale_factor=1.5, mode="bicubic"),
    "exact": lambda x: F.interpolate(x, size=(4, 9), mode="nearest-exact"),
    "unfold": lambda x: (F.unfold(x, 3), F.unfold(x, (2, 3), padding=1, stride=2)),
    "fold": lambda x: F.fold(F.unfold(x, 2, stride=2), (6, 6), 2, stride=2),
    "grid": lambda x: F.grid_sample(x, x[:, :, :3].permute(0, 2, 3, 1), align_corners=False),
    "pool": lambda x: F.adaptive_avg_pool3d(x[:, :, None], 1),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_equal_eager(
    name: str, canonical: Callable[..., Graph], function: Callable[..., nn.Module]
) -> None:
    canonical(function(ROWS[name]), torch.randn(2, 4, 4))


@pytest.mark.parametrize("name", IMAGES)
def test_images_equal_eager(
    name: str, canonical: Callable[..., Graph], function: Callable[..., nn.Module]
) -> None:
    canonical(function(IMAGES[name]), torch.randn(2, 2, 6, 6))


def test_what_torch_takes_apart_at_a_fixed_batch(
    canonical: Callable[..., Graph], function: Callable[..., nn.Module]
) -> None:
    model = function(lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"))
    canonical(model, torch.randn(2, 1, 3, 4, 4), fixed=True)


def test_equal_entries_keep_their_order(
    canonical: Callable[..., Graph], function: Callable[..., nn.Module]
) -> None:
    graph = canonical(function(lambda x: x.sort(stable=True, dim=1)), torch.ones(2, 5))
    assert graph(torch.ones(1, 5))[1].tolist() == [[0, 1, 2, 3, 4]]


def test_a_list_of_positions_is_one_index_select(
    canonical: Callable[..., Graph],
    function: Callable[..., nn.Module],
    operators: Callable[[Graph], Counter[str]],
) -> None:
    model = function(lambda x, i: x[:, i])
    graph = canonical(model, torch.randn(1, 5), torch.tensor([[2, 0]]), fixed=True)
    assert operators(graph)["index_select"] == 1


def test_a_model_written_for_two_samples_is_captured_for_two(
    canonical: Callable[..., Graph], function: Callable[..., nn.Module]
) -> None:
    canonical(function(lambda x: x.view(2, 2, 3)), torch.randn(2, 6), fixed=True)


def test_an_operator_of_unknown_parts_is_refused_by_name(
    function: Callable[..., nn.Module],
) -> None:
    with pytest.raises(OperatorError, match=r"operator aten\.quantile\.scalar has no row"):
        planish.capture(function(lambda x: x.quantile(0.5, dim=1)), torch.randn(2, 6))

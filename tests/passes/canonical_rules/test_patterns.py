"""Functions that were spelled out are found; what only looks like them is not."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from planish.ir import Graph

ROOT = math.sqrt(2 / math.pi)
FOUND: dict[str, tuple[str, Callable[[torch.Tensor], Any]]] = {
    "gelu": ("gelu", lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))),
    "gelu, other order": ("gelu", lambda x: x * (torch.erf(x * 0.70710678) + 1.0) / 2),
    "gelu by tanh": (
        "gelu",
        lambda x: 0.5 * x * (1 + torch.tanh(ROOT * (x + 0.044715 * x.pow(3)))),
    ),
    "gelu by tanh, factored": (
        "gelu",
        lambda x: 0.5 * x * (1 + torch.tanh(x * 0.7978845608 * (1 + 0.044715 * x * x))),
    ),
    "silu": ("silu", lambda x: torch.sigmoid(x) * x),
    "mish": ("mish", lambda x: x * torch.tanh(F.softplus(x))),
    "mish by log": ("mish", lambda x: x * torch.tanh(torch.log(1 + torch.exp(x)))),
    "hardswish": ("hardswish", lambda x: x * F.relu6(x + 3) / 6),
    "hardswish, other order": ("hardswish", lambda x: x * (F.relu6(x + 3) / 6)),
    "hardsigmoid": ("hardsigmoid", lambda x: F.relu6(x + 3) / 6),
    "hardsigmoid as ONNX has it": ("hardsigmoid", lambda x: (x / 6 + 0.5).clamp(0, 1)),
}


@pytest.mark.parametrize("name", FOUND)
def test_found(
    name: str,
    canonical: Callable[..., Graph],
    function: Callable[..., nn.Module],
    operators: Callable[[Graph], Counter[str]],
) -> None:
    operator, spelled = FOUND[name]
    assert operators(canonical(function(spelled), torch.randn(2, 16))) == {operator: 1}


LIKE: dict[str, Callable[[torch.Tensor], Any]] = {
    "gelu of another value": lambda x: 0.5 * (x + 1) * (1 + torch.erf(x / math.sqrt(2))),
    "another factor": lambda x: 0.4 * x * (1 + torch.erf(x / math.sqrt(2))),
    "sigmoid of another value": lambda x: x * torch.sigmoid(x + 1),
    "another clamp": lambda x: x * (x + 3).clamp(0, 5) / 6,
}


@pytest.mark.parametrize("name", LIKE)
def test_not_found(
    name: str,
    canonical: Callable[..., Graph],
    function: Callable[..., nn.Module],
    operators: Callable[[Graph], Counter[str]],
) -> None:
    found = operators(canonical(function(LIKE[name]), torch.randn(2, 16)))
    assert not {"gelu", "silu", "hardswish"} & set(found)


class Spelled(nn.Module):
    """Layer normalization by hand, once with weight and bias, once without."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.bias = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8))
        self.axis = axis

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x: [n, 8, 8]."""
        mean = x.mean(self.axis, keepdim=True)
        variance = (x - mean).pow(2).mean(self.axis, keepdim=True)
        normed = (x - mean) / torch.sqrt(variance + 1e-6)
        deviation = x.var(self.axis, keepdim=True, unbiased=False)
        return self.weight * normed + self.bias, (x - mean) * torch.rsqrt(deviation + 1e-5)


def test_layer_norm(canonical: Callable[..., Graph], golden: Callable[[str, str], None]) -> None:
    golden("canonicalize_layer_norm", canonical(Spelled(), torch.randn(2, 8, 8)).text())


def test_normalization_over_another_axis_is_no_layer_norm(
    canonical: Callable[..., Graph], operators: Callable[[Graph], Counter[str]]
) -> None:
    found = operators(canonical(Spelled(1), torch.randn(2, 8, 8)))
    assert "layer_norm" not in found

"""What has an integer form but can't take it stays in float, by name and with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from planish import capture
from planish.ir import Graph, verify
from planish.ir.coverage import int8_coverage
from planish.passes import Context, InsertQDQ, LowerToInteger

Tensor = torch.Tensor


class Model(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Tensor], **layers: Any) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the function makes of the input, between two tables."""
        return torch.sigmoid(self.function(self, torch.tanh(x)))


def lower(model: nn.Module, x: Tensor) -> tuple[Graph, list[tuple[str, str]]]:
    """Return the integer graph and what both passes refused; it must compute the simulation."""
    graph = capture(model.eval(), x)
    quantized = InsertQDQ().run(graph, Context(data=[x]))
    result = LowerToInteger().run(quantized.graph.copy(), Context())
    verify(result.graph)
    with torch.no_grad():
        torch.testing.assert_close(result.graph(x), quantized.graph(x), atol=0.02, rtol=0)
    refused = {r.node: r.reason for r in (*result.refused, *quantized.refused)}
    assert {f.node for f in int8_coverage(result.graph).fallbacks} == set(refused)
    return result.graph, list(refused.items())


X = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
REFUSED: dict[str, tuple[nn.Module, Tensor]] = {
    "the size of its axis 0 is open": (Model(lambda m, x: x.softmax(0)), X),
    "it normalizes 33000 values; at most 32768 are exact": (
        Model(lambda m, x: F.layer_norm(x, [33000])),
        torch.randn(2, 33000),
    ),
    "its eps is too large for the scale of its input": (
        Model(lambda m, x: F.layer_norm(x * 1e-9, [6], eps=1.0) * 1e9),
        X,
    ),
    "log_softmax has no integer form": (Model(lambda m, x: x.log_softmax(-1)), X),
    "its weight is computed, not stored": (
        Model(lambda m, x: F.linear(x[0], x[1])),
        X,
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refusal(reason: str) -> None:
    model, x = REFUSED[reason]
    _, refused = lower(model, x)
    assert [each for _, each in refused].count(reason) == 1


def test_a_bias_that_does_not_fit_stays_in_float() -> None:
    """insert-qdq widens the weight's scale; a hand-made one is left alone, and can't be used."""
    graph = capture(nn.Linear(6, 3).eval(), X)
    quantized = InsertQDQ().run(graph, Context(data=[X])).graph
    quantized.set_attribute("weight_scale", torch.full((3,), 1e-12))
    result = LowerToInteger().run(quantized, Context())
    assert "does not fit int32" in result.refused[0].reason


def test_a_mask_of_booleans_enters_without_a_fallback() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor, keep: Tensor) -> Tensor:
            return torch.tanh(x) * keep.to(torch.float32)

    inputs = (X, X > 0)
    quantized = InsertQDQ().run(capture(Masked(), inputs), Context(data=[inputs]))
    result = LowerToInteger().run(quantized.graph, Context())
    assert (*quantized.refused, *result.refused) == ()
    assert int8_coverage(result.graph).fallbacks == ()


def test_a_leading_axis_of_the_batch_is_summed_where_its_size_is_known() -> None:
    graph = capture(Model(lambda m, x: x.mean(0)), X).fix_batch(2)
    quantized = InsertQDQ().run(graph, Context(data=[X])).graph
    assert LowerToInteger().run(quantized, Context()).refused == ()

"""What holds of every canonical graph, checked in one place."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from planish import capture
from planish.ir import Graph, verify
from planish.passes import Canonicalize, Context


def flat(value: Any) -> list[torch.Tensor]:
    """The tensors of a nested result, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    return [tensor for item in items for tensor in flat(item)]


@pytest.fixture
def canonical() -> Callable[..., Graph]:
    """`canonical(model, *inputs)`: its canonical graph, sound and equal to eager torch.

    Equal at another batch size than the example's, where the batch is open; `fixed=True` says that
    it is not. Canonicalizing once more changes nothing.
    """

    def check(model: nn.Module, *inputs: torch.Tensor, fixed: bool = False) -> Graph:
        model.eval()
        graph = capture(model, inputs)
        verify(graph)
        opened = all(spec.shape[0] is None for spec in graph.inputs)
        assert opened != fixed
        if opened:
            inputs = tuple(torch.cat([x, x.flip(0)])[:3] for x in inputs)
        with torch.no_grad():
            expected, found = flat(model(*inputs)), flat(graph(*inputs))
        assert len(expected) == len(found)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert not Canonicalize().run(graph.copy(), Context()).changed
        return graph

    return check


@pytest.fixture
def operators() -> Callable[[Graph], Counter[str]]:
    """`operators(graph)`: how often each operator stands in it, by its short name."""
    return lambda graph: Counter(
        str(node.target).removeprefix("aten.").removesuffix(".default") for node in graph.calls
    )


class Lambda(nn.Module):
    """A module made of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Apply the function."""
        return self.function(*inputs)


@pytest.fixture
def function() -> type[Lambda]:
    """`function(f)`: a module that computes f."""
    return Lambda

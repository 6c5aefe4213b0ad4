"""lower-to-integer: the integers are the simulated values, and what stays in float says why."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from planish import capture
from planish.ir import Graph, Level, verify
from planish.ir.ops import arguments
from planish.passes import Context, FoldBatchNorm, InsertQDQ, LowerToInteger


def lower(graph: Graph, images: torch.Tensor, **options: object) -> tuple[Graph, Graph, list[Any]]:
    folded = FoldBatchNorm().run(graph.copy(), Context()).graph
    quantized = InsertQDQ(**options).run(folded, Context(data=[images])).graph  # type: ignore[arg-type]
    result = LowerToInteger().run(quantized.copy(), Context())
    verify(result.graph)
    assert result.graph.level is Level.INTEGER
    return quantized, result.graph, [(r.node, r.reason) for r in result.refused]


def steps_apart(quantized: Graph, integer: Graph, images: torch.Tensor) -> torch.Tensor:
    """Return how many steps of the output scale the two levels are apart."""
    (output,) = integer.outputs
    scale = arguments(output)["scale"]
    with torch.no_grad():
        return ((quantized(images) - integer(images)) / scale).round().abs()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_random_networks(
    seed: int, dtype: str, random_graph: Callable[[int], Graph], images: torch.Tensor
) -> None:
    quantized, integer, refused = lower(random_graph(seed), images, activation_dtype=dtype)
    assert refused == []
    float_calls = [node for node in integer.calls if str(node.target).startswith("aten.")]
    assert all(integer.dtype(node) in (torch.uint8, torch.int8) for node in float_calls)
    apart = steps_apart(quantized, integer, images)
    assert float(apart.max()) <= 2  # float sums of the simulation may round the other way
    assert float((apart > 0).float().mean()) < 0.1


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Clamps fused and not, two scales added, an average, dropout."""
        y = torch.clamp(self.conv(x), -0.5, 0.5)
        y = y + torch.nn.functional.max_pool2d(y, 3, 1, 1)
        y = torch.tanh(torch.nn.functional.avg_pool2d(y, 3, 2, 1, count_include_pad=False))
        return self.fc(torch.dropout(y.mean((2, 3)), 0.5, False))


def test_text(golden: Callable[[str, str], None], images: torch.Tensor) -> None:
    torch.manual_seed(0)
    graph = capture(Small().eval(), torch.zeros(1, 3, 9, 8))
    quantized, integer, refused = lower(graph, images)
    golden("lower_to_integer_small", f"{quantized.text()}\n{integer.text()}")
    assert refused == []
    assert float(steps_apart(quantized, integer, images).max()) <= 1


class Islands(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Integer, float, integer."""
        return self.second(torch.cumsum(torch.log_softmax(self.first(x), 1), 1))


def test_float_islands_are_explicit_and_reported(
    golden: Callable[[str, str], None], images: torch.Tensor
) -> None:
    torch.manual_seed(0)
    graph = capture(Islands().eval(), torch.zeros(1, 3, 9, 8))
    quantized, integer, refused = lower(graph, images)
    golden("lower_to_integer_islands", integer.text())
    assert refused == [
        ("log_softmax", "log_softmax has no integer form"),
        ("cumsum", "cumsum has no integer form"),
    ]
    torch.testing.assert_close(quantized(images), integer(images), atol=0.05, rtol=0)


def test_a_skipped_layer_is_an_island(
    random_graph: Callable[[int], Graph], images: torch.Tensor
) -> None:
    quantized, integer, refused = lower(random_graph(0), images, skip=("head",))
    assert ("head", "its weight is not quantized") in refused
    torch.testing.assert_close(quantized(images), integer(images), atol=0.05, rtol=0)


def test_deterministic(random_graph: Callable[[int], Graph], images: torch.Tensor) -> None:
    first = lower(random_graph(3), images)[1]
    assert lower(random_graph(3), images)[1].fingerprint() == first.fingerprint()


def test_additions_are_exact(random_graph: Callable[[int], Graph], images: torch.Tensor) -> None:
    """Scales of additions were moved so that the fixed-point ratios are the real ratios."""
    seed = next(s for s in range(50) if "add" in random_graph(s).text())
    quantized, integer, _ = lower(random_graph(seed), images)
    node = next(n for n in integer.calls if n.target is torch.ops.planish.add_i8.default)
    values = arguments(node)
    scales = {
        name.removeprefix("quantization.").removesuffix(".scale"): float(tensor)
        for name, tensor in quantized.attributes.items()
        if name.startswith("quantization.") and name.endswith(".scale")
    }
    ratios = {a / y for a in scales.values() for y in scales.values()}
    for multiplier in (values["a_multiplier"], values["b_multiplier"]):
        exact = multiplier * 2.0 ** -values["shift"]
        assert min(abs(ratio / exact - 1.0) for ratio in ratios) < 2.0**-22

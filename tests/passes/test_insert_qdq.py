"""insert-qdq: where the operator table says, with scales that the data asks for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from planish import capture
from planish.ir import DataError, Graph, Level, OptionError, verify
from planish.passes import Context, FoldBatchNorm, InsertQDQ
from planish.passes.quantization.observers import (
    BINS,
    Histogram,
    choose_qparams,
    mse_range,
    percentile_range,
    weight_scales,
)


def quantize(graph: Graph, data: Any, **options: Any) -> Graph:
    folded = FoldBatchNorm().run(graph.copy(), Context()).graph
    result = InsertQDQ(**options).run(folded, Context(data=data))
    verify(result.graph)
    assert result.graph.level is Level.QUANTIZED
    return result.graph


class Placed(nn.Module):
    """Fusion, a shared scale, a table, an island, a clamp that can't fuse."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A concatenation of a clamped and an unclamped branch, then an island."""
        a = torch.nn.functional.relu6(self.first(x))
        b = self.second(x)
        both = torch.nn.functional.max_pool2d(torch.cat([a, b, torch.relu(b)], 1)[:, :8], 2)
        y = torch.sigmoid(self.last(both))
        return y, torch.log_softmax(y, 1)


def test_placement(golden: Callable[[str, str], None], images: torch.Tensor) -> None:
    torch.manual_seed(0)
    graph = capture(Placed().eval(), torch.zeros(1, 3, 9, 8))
    result = InsertQDQ().run(graph, Context(data=[images]))
    golden("insert_qdq_placement", result.graph.text())
    assert [(r.node, r.reason) for r in result.refused] == [
        ("log_softmax", "log_softmax has no integer form")
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("observer", ["min-max", "percentile", "mse"])
def test_random_networks_stay_close_and_trainable(
    seed: int, observer: str, random_graph: Callable[[int], Graph], images: torch.Tensor
) -> None:
    graph = random_graph(seed)
    quantized = quantize(graph, [images[:8], images[8:]], observer=observer)
    expected, got = graph(images), quantized(images)
    noise = float((((got - expected) ** 2).mean() / (expected**2).mean()).detach())
    assert noise < 0.02  # better than 17 dB, on random weights
    got.sum().backward()
    assert all(parameter.grad is not None for parameter in quantized.parameters())


def test_same_data_same_graph(random_graph: Callable[[int], Graph], images: torch.Tensor) -> None:
    first, second = (quantize(random_graph(1), [images]) for _ in range(2))
    assert first.fingerprint() == second.fingerprint()


def test_symmetric_int8(random_graph: Callable[[int], Graph], images: torch.Tensor) -> None:
    graph = quantize(random_graph(0), [images], activation_dtype="int8", symmetric=True)
    zero_points = [v for n, v in graph.attributes.items() if n.endswith(".zero_point")]
    assert zero_points
    assert all(int(value) == 0 for value in zero_points)


def test_per_tensor_weights(random_graph: Callable[[int], Graph], images: torch.Tensor) -> None:
    graph = quantize(random_graph(0), [images], per_channel=False)
    assert graph.attribute("stem.weight_scale").shape == ()


def test_skip(random_graph: Callable[[int], Graph], images: torch.Tensor) -> None:
    graph = quantize(random_graph(0), [images], skip=("he*",))
    assert "head.weight_scale" not in graph.attributes
    with pytest.raises(OptionError, match="did you mean 'head'"):
        quantize(random_graph(0), [images], skip=("heed",))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "insert-qdq needs data"),
        ([], "got no batches"),
        (iter(()), "got no batches"),
        ([torch.full((2, 3, 9, 8), float("nan"))], "batch 0"),
        ([torch.full((2, 3, 9, 8), float("inf"))], "NaN or infinity"),
        ([torch.zeros(2, 3, 9, 9)], "expected x: f32[N, 3, 9, 8]"),
        ([torch.zeros(2, 3, 9, 8, dtype=torch.uint8)], "dtype u8"),
        ([torch.zeros(0, 3, 9, 8)], "no samples"),
        ([(torch.zeros(2, 3, 9, 8), 1, 2)], "the batch has 3 entries, the model takes 1"),
        ([{"picture": torch.zeros(2, 3, 9, 8)}], "the batch has no ['x']"),
        ([["a", "b"]], "is not an array"),
    ],
)
def test_bad_calibration(data: Any, message: str, random_graph: Callable[[int], Graph]) -> None:
    with pytest.raises(DataError) as error:
        quantize(random_graph(0), data)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"observer": "max"},
        {"percentile": 0.0},
        {"percentile": 101.0},
        {"batches": 0},
        {"activation_dtype": "int4"},
        {"activation_dtype": 8},
        {"batches": 1.5},
        {"batches": "3"},
        {"batches": True},
        {"batches": 10**24},
        {"percentile": "99"},
        {"per_channel": "no"},
        {"skip": (1, 2)},
        {"skip": 5},
        {"observer": None},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        InsertQDQ(**options)


def test_histogram_streams() -> None:
    torch.manual_seed(0)
    values = [torch.randn(1000) * 3.0**i for i in range(4)]
    streamed = Histogram()
    for value in values:
        streamed.observe(value)
    everything = torch.cat(values)
    assert (streamed.low, streamed.high) == (float(everything.min()), float(everything.max()))
    assert float(streamed.counts.sum()) == 4000
    assert streamed.counts.numel() == BINS
    low, high = percentile_range(streamed, 98.0)
    inside = ((everything >= low) & (everything <= high)).float().mean()
    assert 0.975 <= float(inside) <= 0.99


def test_mse_clips_outliers_only_where_it_pays() -> None:
    outlier = Histogram()
    outlier.observe(torch.cat([torch.linspace(-1, 1, 100_000), torch.tensor([8.0])]))
    assert mse_range(outlier, 0)[1] < 8.0
    uniform = Histogram()
    uniform.observe(torch.linspace(-1, 1, 100_000))
    assert mse_range(uniform, 0) == (-1.0, 1.0)


def test_qparams_hold_zero_exactly() -> None:
    q = choose_qparams(0.5, 2.0, 0, 255, symmetric=False)
    assert q.zero_point == 0  # the range was widened to hold 0
    assert choose_qparams(0.0, 0.0, 0, 255, symmetric=False).scale == 1.0
    assert choose_qparams(-1.0, 3.0, 0, 255, symmetric=True).zero_point == 128


def test_a_channel_of_zeros_takes_a_harmless_scale() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.27, -0.5]])
    assert weight_scales(weight, "min-max", per_channel=True).tolist() == pytest.approx([0.01] * 2)


def test_a_huge_bias_widens_the_weight_scale(images: torch.Tensor) -> None:
    conv = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        conv.weight[0] *= 1e-12
        conv.bias.fill_(3.0)  # type: ignore[union-attr]
    graph = quantize(capture(conv.eval(), torch.zeros(1, 3, 9, 8)), [images])
    torch.testing.assert_close(graph(images), conv(images), atol=0.05, rtol=0.05)


def test_integers_as_data_are_checked(random_graph: Callable[[int], Graph]) -> None:
    with pytest.raises(DataError):
        quantize(random_graph(0), 3)

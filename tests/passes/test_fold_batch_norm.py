"""fold-batch-norm: the same numbers without batch norms, or the reason why one stays."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from planish import capture
from planish.ir import Graph, verify
from planish.passes import Context, FoldBatchNorm


def norm(channels: int, flat: bool = False) -> nn.Module:
    """A batch norm with statistics that are not the initial ones."""
    made = nn.BatchNorm1d(channels) if flat else nn.BatchNorm2d(channels)
    for tensor, low, high in (
        (made.running_mean, -1, 1),
        (made.running_var, 0.5, 2),
        (made.weight, 0.5, 2),
        (made.bias, -1, 1),
    ):
        nn.init.uniform_(tensor, low, high)  # type: ignore[arg-type]
    return made


def fold(model: nn.Module, *shape: int) -> tuple[Graph, list[str]]:
    torch.manual_seed(0)
    model.eval()
    graph = capture(model, torch.zeros(1, *shape))
    result = FoldBatchNorm().run(graph.copy(), Context())
    verify(result.graph)
    x = torch.randn(4, *shape)
    torch.testing.assert_close(result.graph(x), model(x), rtol=1e-4, atol=1e-4)
    assert result.changed == (result.graph.fingerprint() != graph.fingerprint())
    return result.graph, [refusal.reason for refusal in result.refused]


FOLDED = {
    "conv": (nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), norm(4), nn.ReLU()), (3, 6, 6)),
    "conv_bias": (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), norm(4)), (3, 6, 6)),
    "depthwise": (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), norm(4)), (4, 6, 6)),
    "grouped": (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), norm(6)), (4, 6, 6)),
    "linear": (nn.Sequential(nn.Linear(5, 4), norm(4, flat=True)), (5,)),
    "in_front_of_conv": (nn.Sequential(norm(4), nn.Conv2d(4, 6, 3, groups=2)), (4, 6, 6)),
    "in_front_of_depthwise": (nn.Sequential(norm(4), nn.Conv2d(4, 4, 3, groups=4)), (4, 6, 6)),
    "in_front_of_linear": (nn.Sequential(norm(5, flat=True), nn.Linear(5, 4)), (5,)),
    "both_sides": (nn.Sequential(nn.Conv2d(3, 4, 1), norm(4), nn.Conv2d(4, 2, 1)), (3, 6, 6)),
}


@pytest.mark.parametrize("name", FOLDED)
def test_folds(name: str, golden: Callable[[str, str], None]) -> None:
    model, shape = FOLDED[name]
    graph, reasons = fold(model, *shape)
    assert reasons == []
    golden(f"fold_batch_norm_{name}", graph.text())
    again = FoldBatchNorm().run(graph.copy(), Context())
    assert not again.changed
    assert again.graph.fingerprint() == graph.fingerprint()


class Forked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), norm(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.bn(y) + y


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), norm(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(self.conv(x)))


class Computed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bn = nn.Parameter(torch.ones(3, 3, 1, 1)), norm(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(torch.conv2d(x, torch.tanh(self.weight)))


REFUSED = {
    "is also read by add": Forked(),
    "the weight of conv_1 is shared": Shared(),
    "is computed, not stored": Computed(),
    "pads with zeros": nn.Sequential(norm(3), nn.Conv2d(3, 4, 3, padding=1)),
    "it follows relu, and no single": nn.Sequential(nn.ReLU(), norm(3), nn.ReLU()),
    "has no running statistics": nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refuses(reason: str) -> None:
    torch.manual_seed(0)
    model = REFUSED[reason].eval()
    graph = capture(model, torch.zeros(2, 3, 6, 6))
    result = FoldBatchNorm().run(graph.copy(), Context())
    assert [reason in refusal.reason for refusal in result.refused] == [True]
    assert not result.changed
    assert result.graph.fingerprint() == graph.fingerprint()


def test_refuses_in_training_mode() -> None:
    graph = capture(FOLDED["conv"][0], torch.zeros(1, 3, 6, 6)).train()
    result = FoldBatchNorm().run(graph, Context())
    assert "training mode" in result.refused[0].reason


def test_in_front_of_a_linear_layer_along_another_axis_is_refused() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(5, 4)).eval()
    graph = capture(model, torch.zeros(1, 3, 5))
    result = FoldBatchNorm().run(graph, Context())
    assert "does not work along the channel axis" in result.refused[0].reason


@pytest.mark.parametrize("seed", range(6))
def test_random_networks(
    seed: int, random_graph: Callable[[int], Graph], images: torch.Tensor
) -> None:
    graph = random_graph(seed)
    result = FoldBatchNorm().run(graph.copy(), Context())
    verify(result.graph)
    assert result.notes["folded"] >= 2
    torch.testing.assert_close(result.graph(images), graph(images), rtol=1e-4, atol=1e-4)

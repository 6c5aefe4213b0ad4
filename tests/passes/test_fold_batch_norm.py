"""fold-batch-norm: the same numbers without batch norms, or the reason why one stays."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from planish import capture
from planish.ir import Graph, verify
from planish.ir.ops import arguments
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


def test_a_computed_weight_is_stored_and_folded_into() -> None:
    graph, reasons = fold(Computed(), 3, 6, 6)
    assert reasons == []
    assert [node.target for node in graph.calls] == [torch.ops.aten.conv2d.default]
    assert all(tensor.requires_grad for tensor in graph.attributes.values())


CONVOLUTIONS = {
    "read elsewhere": Forked(),
    "shared weight": Shared(),
    "in front of padding": nn.Sequential(norm(3), nn.Conv2d(3, 4, 3, padding=1)),
    "between activations": nn.Sequential(nn.ReLU(), norm(3), nn.ReLU()),
    "without weight and bias": nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3, affine=False)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_batch_norm_of_images_elsewhere_becomes_a_depthwise_convolution(name: str) -> None:
    model = CONVOLUTIONS[name]
    graph, reasons = fold(model, 3, 6, 6)
    assert reasons == []
    assert "batch_norm" not in graph.text()
    convolutions = [n for n in graph.calls if n.target is torch.ops.aten.conv2d.default]
    assert [arguments(n)["groups"] for n in convolutions].count(3) == 1
    assert not FoldBatchNorm().run(graph, Context()).changed


def lines(*layers: nn.Module) -> tuple[nn.Module, tuple[int, ...]]:
    """Layers on [n, 3]: no images."""
    return nn.Sequential(*layers), (2, 3)


REFUSED = {
    "it follows relu, and no single": lines(nn.ReLU(), norm(3, flat=True), nn.ReLU()),
    "has no running statistics": (
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
        (2, 3, 6, 6),
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refuses(reason: str) -> None:
    torch.manual_seed(0)
    model, shape = REFUSED[reason]
    graph = capture(model.eval(), torch.zeros(*shape))
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

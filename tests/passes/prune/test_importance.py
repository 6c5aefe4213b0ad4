"""The criteria of prune-channels: what they measure, what they need, what they leave alone."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from planish.ir import DataError, Graph, PassError
from planish.passes import Context, FoldBatchNorm, PassResult, PruneChannels
from planish.passes.pruning.channel_groups import channel_groups
from planish.passes.pruning.importance import CRITERIA, first_order_taylor

Prune = Callable[..., PassResult]
Data = list[tuple[Tensor, Tensor]]


def silence(graph: Graph, weight: str, channels: list[int]) -> None:
    with torch.no_grad():
        graph.attribute(weight)[channels] *= 1e-3


@pytest.mark.parametrize("importance", ["l1", "l2"])
def test_small_filters_go_first(graph: Graph, importance: str, prune: Prune) -> None:
    silence(graph, "a.0.weight", [3, 7, 20])
    expected = graph.attribute("a.0.weight").detach().clone()
    pruned = prune(graph, ratio=3 / 80, importance=importance).graph
    left = [i for i in range(24) if i not in (3, 7, 20)]
    stem = pruned.attribute("a.0.weight").shape[1]
    assert stem == 16
    assert torch.equal(pruned.attribute("a.0.weight"), expected[left])


def test_small_scales_go_first(graph: Graph, prune: Prune) -> None:
    silence(graph, "a.1.weight", [0, 1, 5])
    expected = graph.attribute("a.1.bias").detach().clone()
    pruned = prune(graph, ratio=0.03, importance="bn-scale").graph
    assert torch.equal(pruned.attribute("a.1.bias"), expected[[2, 3, 4, *range(6, 24)]])


def test_layers_without_a_batch_norm_keep_still_under_bn_scale(graph: Graph, prune: Prune) -> None:
    result = prune(graph, ratio=0.3, importance="bn-scale")
    reasons = {item.node: item.reason for item in result.refused}
    assert reasons["hidden"] == "scaled by no batch norm (importance 'bn-scale')"
    assert result.notes["layers"]["hidden"] == [12, 12]
    folded = FoldBatchNorm().run(result.graph, Context()).graph
    with pytest.raises(
        PassError, match=r"at most 0 of the channels can go; kept whole: stem \(scaled by"
    ):
        PruneChannels(ratio=0.3, importance="bn-scale").run(folded, Context())


def test_taylor_is_the_squared_slope_of_a_gate(graph: Graph, labelled: Data) -> None:
    """Against finite differences in float64, one layer behind its batch norm and one without."""
    graph.module.double()
    graph.inputs = [type(s)(s.name, s.shape, torch.float64) for s in graph.inputs]
    graph.infer()
    data = [(x.double(), y) for x, y in labelled[:2]]
    groups = channel_groups(graph)
    scores = first_order_taylor(graph, groups, Context(data=data), 2)
    step = 1e-6
    for layer, tensors in {"a.0": ("a.1.weight", "a.1.bias"), "hidden": ("hidden.weight",)}.items():
        (found,) = (item for item in groups.layers if item.name == layer)
        for channel in (0, 5):
            gated = [*tensors, *(["hidden.bias"] if layer == "hidden" else [])]
            slopes = []
            for x, y in data:
                loss = {}
                for factor in (1 + step, 1 - step):
                    moved = graph.copy()
                    with torch.no_grad():
                        for name in gated:
                            moved.attribute(name)[channel] *= factor
                        loss[factor] = float(nn.functional.cross_entropy(moved(x), y))
                slopes.append((loss[1 + step] - loss[1 - step]) / (2 * step))
            expected = sum(slope**2 for slope in slopes) / len(slopes)
            assert math.isclose(scores[found.units[channel]], expected, rel_tol=1e-4, abs_tol=1e-12)


def test_taylor_reads_at_most_so_many_batches(graph: Graph, labelled: Data) -> None:
    class Counting:
        read = 0

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in labelled:
                self.read += 1
                yield batch

    data = Counting()
    PruneChannels(macs=0.5, importance="taylor", batches=2).run(graph, Context(data=data))
    assert data.read == 2


def test_taylor_leaves_modes_and_statistics_alone(graph: Graph, labelled: Data) -> None:
    graph.train()
    before = graph.fingerprint()
    PruneChannels(macs=1.0, importance="taylor").run(graph, Context(data=labelled))
    assert graph.fingerprint() == before
    assert graph.training


def test_coupled_channels_are_summed(graph: Graph) -> None:
    groups = channel_groups(graph)
    scores = CRITERIA["l1"](graph, groups, Context(), 1)
    members = ("stem.weight", "b.0.weight", "depthwise.weight")
    each = [graph.attribute(name).detach().double().abs().flatten(1).sum(1) for name in members]
    (stem,) = (layer for layer in groups.layers if layer.name == "stem")
    torch.testing.assert_close(torch.from_numpy(scores[stem.units]), sum(each))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "needs data"),
        ([], "no batches"),
        ([torch.zeros(2, 3, 8, 8)], "needs labels"),
        ([(torch.zeros(2, 3, 8, 8), torch.zeros(3, dtype=torch.int64))], "labels"),
    ],
)
def test_taylor_needs_labelled_data(graph: Graph, data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        PruneChannels(macs=0.5, importance="taylor").run(graph, Context(data=data))


def test_taylor_refuses_a_loss_that_is_not_finite_or_depends_on_nothing(
    graph: Graph, labelled: Data
) -> None:
    taylor = PruneChannels(macs=0.5, importance="taylor")
    with pytest.raises(PassError, match="not finite"):
        taylor.run(graph, Context(data=labelled, loss=lambda out, _: out.sum() * math.inf))
    with pytest.raises(PassError, match="depends on no layer"):
        taylor.run(graph, Context(data=labelled, loss=lambda *_: torch.zeros(())))

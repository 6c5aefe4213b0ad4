"""prune-channels: its targets, criteria, options and errors. Exactness has a file of its own."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from planish import Pipeline, capture
from planish.ir import DataError, Graph, OptionError, PassError, verify
from planish.passes import Context, FoldBatchNorm, PassResult, PruneChannels
from planish.passes.channel_groups import channel_groups
from planish.passes.cost import cost
from planish.passes.importance import CRITERIA, first_order_taylor
from planish.passes.registry import build_pass


class Small(nn.Module):
    """A stem, a residual block, a depthwise convolution, a concatenation, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.a = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24))
        self.b = nn.Sequential(nn.Conv2d(24, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.depthwise = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(16)
        self.side = nn.Sequential(nn.Conv2d(16, 8, 1, stride=2), nn.BatchNorm2d(8))
        self.hidden = nn.Linear(24 * 4, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, 5]."""
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.b(torch.relu(self.a(x))))
        y = torch.cat([self.depthwise_norm(self.depthwise(x)), self.side(x)], 1)
        y = nn.functional.avg_pool2d(torch.relu(y), 2)
        return self.head(torch.relu(self.hidden(y.flatten(1))))


@dataclass(frozen=True)
class Eights:
    """A target whose vectors like channels in multiples of eight."""

    name: str = "eights"
    channel_multiple: int = 8
    activation_dtype: str = "uint8"


@pytest.fixture(scope="module")
def whole() -> Graph:
    torch.manual_seed(0)
    model = Small().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return capture(model, torch.zeros(2, 3, 8, 8))


@pytest.fixture
def graph(whole: Graph) -> Graph:
    return whole.copy()


def labelled(batches: int = 3) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(5)
    return [
        (torch.randn(8, 3, 8, 8, generator=draw), torch.randint(0, 5, (8,), generator=draw))
        for _ in range(batches)
    ]


def prune(graph: Graph, **options: Any) -> PassResult:
    before = graph.fingerprint()
    result = PruneChannels(**options).run(graph, Context(data=labelled()))
    verify(result.graph)
    assert result.changed == (result.graph.fingerprint() != before)
    return result


def kept(result: PassResult, layer: str) -> int:
    return result.notes["layers"][layer][1]


# What it makes.


def test_golden(graph: Graph, golden: Callable[[str, str], None]) -> None:
    result = prune(graph, ratio=0.5, ranking="group", multiple=4)
    lines = [f"{name}: {was} -> {now}" for name, (was, now) in result.notes["layers"].items()]
    refused = [f"{item.node} keeps: {item.reason}" for item in result.refused]
    golden("prune_channels", "\n".join([result.graph.text(), *lines, *refused]))


def test_parameters_stay_trainable_and_frozen_ones_frozen(graph: Graph) -> None:
    trained = {name for name, _ in graph.module.named_parameters()}
    graph.attribute("side.0.bias").requires_grad_(False)
    pruned = prune(graph, macs=0.4).graph
    assert {name for name, _ in pruned.module.named_parameters()} == trained
    assert [n for n, p in pruned.module.named_parameters() if not p.requires_grad] == [
        "side.0.bias"
    ]
    pruned.train()
    pruned(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None for p in pruned.parameters() if p.requires_grad)


def test_it_keeps_names_mode_and_any_batch_size(graph: Graph) -> None:
    graph.eval()
    names = [graph.origin(node).name for node in graph.calls]
    pruned = prune(graph, macs=0.5, importance="taylor").graph
    assert [pruned.origin(node).name for node in pruned.calls] == names
    assert not pruned.training
    assert [tuple(pruned(torch.zeros(n, 3, 8, 8)).shape) for n in (1, 3)] == [(1, 5), (3, 5)]


# Targets.


@pytest.mark.parametrize("ranking", ["global", "group"])
@pytest.mark.parametrize("kind", ["macs", "parameters"])
def test_target_is_met_and_no_step_could_be_spared(graph: Graph, kind: str, ranking: str) -> None:
    before = getattr(cost(graph), kind)
    result = prune(graph, ranking=ranking, **{kind: 0.5})
    after = getattr(cost(result.graph), kind)
    assert result.notes[kind] == [before, after]
    assert after <= 0.5 * before
    dearest = 27 * 64 + 2 * (9 * 64 * 24) + 9 * 16 + 16 * 8  # about what one unit can cost
    assert after > 0.5 * before - (dearest if kind == "macs" else 700)


def test_ratio_counts_channels_that_may_go(graph: Graph) -> None:
    result = prune(graph, ratio=0.25)
    assert result.notes["channels"] == [92, 69]  # head's 5 not among them
    assert kept(result, "head") == 5


def test_group_ranking_takes_the_same_fraction_everywhere(graph: Graph) -> None:
    result = prune(graph, ratio=0.5, ranking="group")
    for name, (was, now) in result.notes["layers"].items():
        assert now == (was if name == "head" else was // 2), name


def test_absolute_targets(graph: Graph) -> None:
    limit = cost(graph).macs // 3
    assert limit * 0.8 < cost(prune(graph, macs=limit).graph).macs <= limit


def test_a_fraction_is_of_the_model_before_any_pruning(graph: Graph) -> None:
    for kind in ("macs", "parameters", "ratio"):
        half = build_pass("prune-channels", {kind: 0.5})
        first = Pipeline([half]).run(graph)
        again = half.run(first.graph.copy(), Context())
        assert not again.changed
        assert again.graph.fingerprint() == first.graph.fingerprint()
    twice = Pipeline([PruneChannels(macs=0.8), PruneChannels(macs=0.5)]).run(graph)
    assert 0.4 < cost(twice.graph).macs / cost(graph).macs <= 0.5


def test_a_target_that_is_met_already_changes_nothing(graph: Graph) -> None:
    assert not prune(graph, macs=1.0).changed
    assert not prune(graph, parameters=10**9).changed


# Criteria.


def silence(graph: Graph, weight: str, channels: list[int]) -> None:
    with torch.no_grad():
        graph.attribute(weight)[channels] *= 1e-3


@pytest.mark.parametrize("importance", ["l1", "l2"])
def test_small_filters_go_first(graph: Graph, importance: str) -> None:
    silence(graph, "a.0.weight", [3, 7, 20])
    expected = graph.attribute("a.0.weight").detach().clone()
    pruned = prune(graph, ratio=3 / 80, importance=importance).graph
    left = [i for i in range(24) if i not in (3, 7, 20)]
    stem = pruned.attribute("a.0.weight").shape[1]
    assert stem == 16
    assert torch.equal(pruned.attribute("a.0.weight"), expected[left])


def test_small_scales_go_first(graph: Graph) -> None:
    silence(graph, "a.1.weight", [0, 1, 5])
    expected = graph.attribute("a.1.bias").detach().clone()
    pruned = prune(graph, ratio=0.03, importance="bn-scale").graph
    assert torch.equal(pruned.attribute("a.1.bias"), expected[[2, 3, 4, *range(6, 24)]])


def test_layers_without_a_batch_norm_keep_still_under_bn_scale(graph: Graph) -> None:
    result = prune(graph, ratio=0.3, importance="bn-scale")
    reasons = {item.node: item.reason for item in result.refused}
    assert reasons["hidden"] == "scaled by no batch norm (importance 'bn-scale')"
    assert kept(result, "hidden") == 12
    folded = FoldBatchNorm().run(result.graph, Context()).graph
    with pytest.raises(
        PassError, match=r"at most 0 of the channels can go; kept whole: stem \(scaled by"
    ):
        PruneChannels(ratio=0.3, importance="bn-scale").run(folded, Context())


def test_taylor_is_the_squared_slope_of_a_gate(graph: Graph) -> None:
    """Against finite differences in float64, one layer behind its batch norm and one without."""
    graph.module.double()
    graph.inputs = [type(s)(s.name, s.shape, torch.float64) for s in graph.inputs]
    graph.infer()
    data = [(x.double(), y) for x, y in labelled(2)]
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


def test_taylor_reads_at_most_so_many_batches(graph: Graph) -> None:
    class Counting:
        read = 0

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in labelled(5):
                self.read += 1
                yield batch

    data = Counting()
    PruneChannels(macs=0.5, importance="taylor", batches=2).run(graph, Context(data=data))
    assert data.read == 2


def test_taylor_leaves_modes_and_statistics_alone(graph: Graph) -> None:
    graph.train()
    before = graph.fingerprint()
    PruneChannels(macs=1.0, importance="taylor").run(graph, Context(data=labelled()))
    assert graph.fingerprint() == before
    assert graph.training


def test_coupled_channels_are_summed(graph: Graph) -> None:
    groups = channel_groups(graph)
    scores = CRITERIA["l1"](graph, groups, Context(), 1)
    members = ("stem.weight", "b.0.weight", "depthwise.weight")
    each = [graph.attribute(name).detach().double().abs().flatten(1).sum(1) for name in members]
    (stem,) = (layer for layer in groups.layers if layer.name == "stem")
    torch.testing.assert_close(torch.from_numpy(scores[stem.units]), sum(each))


# Options.


def test_multiples_come_from_the_target(graph: Graph) -> None:
    result = PruneChannels(macs=0.6).run(graph, Context(target=Eights()))
    assert result.notes["multiple"] == 8
    for name, (was, now) in result.notes["layers"].items():
        assert now == was or now % 8 == 0, name
    (small,) = (item for item in result.refused if item.node == "side.0")
    assert small.reason == "no smaller multiple of 8 leaves at least 1 channels"


def test_an_odd_width_is_cut_to_the_multiple_below(graph: Graph) -> None:
    result = prune(graph, ratio=0.1, multiple=8, protect=("stem", "side.*", "a.0"))
    assert kept(result, "hidden") == 8


def test_minimum(graph: Graph) -> None:
    result = prune(graph, ratio=0.5, minimum=7)
    assert all(now >= min(7, was) for was, now in result.notes["layers"].values())


def test_protected_layers_keep_their_channels_and_say_so(graph: Graph) -> None:
    result = prune(graph, ratio=0.5, protect=("stem", "a.*"))
    assert [kept(result, name) for name in ("stem", "b.0", "depthwise", "a.0")] == [16, 16, 16, 24]
    assert kept(result, "side.0") < 8
    reasons = {item.node: item.reason for item in result.refused}
    assert reasons["b.0"] == "protected by the option protect='stem'"
    assert reasons["a.0"] == "protected by the option protect='a.*'"
    assert reasons["head"] == "part of the model's output"


@pytest.mark.parametrize("importance", list(CRITERIA))
@pytest.mark.parametrize("ranking", ["global", "group"])
def test_the_same_graph_twice(graph: Graph, importance: str, ranking: str) -> None:
    options = {"ratio": 0.3, "importance": importance, "ranking": ranking}
    first, second = prune(graph.copy(), **options), prune(graph, **options)
    assert first.graph.fingerprint() == second.graph.fingerprint()
    assert first.notes == second.notes


def test_ties_are_spread_and_go_by_position(graph: Graph) -> None:
    with torch.no_grad():
        for name, tensor in graph.attributes.items():
            if name.endswith("weight"):
                tensor.fill_(0.5)
    result = prune(graph, ratio=0.5)
    halves = {name: now / was for name, (was, now) in result.notes["layers"].items()}
    assert set(halves.values()) == {0.5, 1.0}
    assert [name for name, fraction in halves.items() if fraction == 1] == ["head"]


def test_recipe_round_trip() -> None:
    written = PruneChannels(macs=0.5, protect=("stem",), importance="taylor", batches=4)
    options = written.options()
    assert options == {"macs": 0.5, "protect": ["stem"], "importance": "taylor", "batches": 4}
    assert build_pass("prune-channels", options) == written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no target; at prune-channels; give exactly one of macs, parameters and ratio"),
        ({"macs": 0.5, "ratio": 0.5}, "2 targets are given: macs, ratio"),
        (
            {"macs": 0.0},
            "macs=0.0 is not a fraction above 0 and up to 1, or a whole number of MACs",
        ),
        ({"macs": -3}, "macs=-3 is not"),
        ({"macs": 2.5}, "macs=2.5 is not"),
        ({"macs": math.nan}, "macs=nan is not"),
        ({"macs": math.inf}, "macs=inf is not"),
        ({"macs": True}, "macs=True is not"),
        ({"macs": "half"}, "macs='half' is not"),
        ({"ratio": 1.5}, "ratio=1.5 is not a fraction above 0 and up to 1"),
        ({"macs": 0.5, "importance": "l3"}, "unknown importance 'l3'; at prune-channels; did you"),
        ({"macs": 0.5, "ranking": "globl"}, "unknown ranking 'globl'; .* 'global'"),
        ({"macs": 0.5, "multiple": 0}, "multiple=0 is not 1 or more"),
        ({"macs": 0.5, "minimum": 0}, "minimum=0 is not 1 or more"),
        ({"macs": 0.5, "batches": 1.5}, "batches=1.5 is not 1 or more"),
        ({"macs": 0.5, "protect": "stem"}, "protect='stem' is no tuple of names"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        PruneChannels(**options)


def test_protecting_an_unknown_layer_names_the_nearest(graph: Graph) -> None:
    with pytest.raises(OptionError, match=r"'stemm'.*did you mean 'stem'"):
        PruneChannels(macs=0.5, protect=("stemm",)).run(graph, Context())


# Errors.


def test_an_unreachable_target_says_what_can_be_reached(graph: Graph) -> None:
    before = graph.fingerprint()
    with pytest.raises(PassError, match=r"macs=0.01 .*the least is 0\.\d+ of the MACs .*stem"):
        PruneChannels(macs=0.01, protect=("stem",)).run(graph, Context())
    assert graph.fingerprint() == before
    with pytest.raises(PassError, match="can go; kept whole: head"):
        PruneChannels(ratio=1.0).run(graph, Context())


def test_what_can_be_reached_can_be_reached(graph: Graph) -> None:
    with pytest.raises(PassError) as caught:
        PruneChannels(parameters=0.001).run(graph, Context())
    least = float(str(caught.value).split("the least is ")[1].split(" ")[0])
    assert prune(graph, parameters=least).changed


def test_a_model_without_layers_has_nothing_to_prune() -> None:
    graph = capture(nn.ReLU(), torch.zeros(2, 3))
    for kind in ("macs", "parameters", "ratio"):
        with pytest.raises(PassError, match=r"has no|at most 0"):
            build_pass("prune-channels", {kind: 0.5}).run(graph, Context())


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


def test_taylor_refuses_a_loss_that_is_not_finite_or_depends_on_nothing(graph: Graph) -> None:
    taylor = PruneChannels(macs=0.5, importance="taylor")
    with pytest.raises(PassError, match="not finite"):
        taylor.run(graph, Context(data=labelled(), loss=lambda out, _: out.sum() * math.inf))
    with pytest.raises(PassError, match="depends on no layer"):
        taylor.run(graph, Context(data=labelled(), loss=lambda *_: torch.zeros(())))

"""prune-channels: what it makes, its targets, options and errors."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from planish import Pipeline, capture
from planish.ir import Graph, OptionError, PassError
from planish.passes import Context, PassResult, PruneChannels
from planish.passes.pruning.cost import cost
from planish.passes.pruning.importance import CRITERIA
from planish.passes.registry import build_pass

Prune = Callable[..., PassResult]


@dataclass(frozen=True)
class Eights:
    """A target whose vectors like channels in multiples of eight."""

    name: str = "eights"
    channel_multiple: int = 8
    activation_dtype: str = "uint8"


def kept(result: PassResult, layer: str) -> int:
    return result.notes["layers"][layer][1]


# What it makes.


def test_golden(graph: Graph, golden: Callable[[str, str], None], prune: Prune) -> None:
    result = prune(graph, ratio=0.5, ranking="group", multiple=4)
    lines = [f"{name}: {was} -> {now}" for name, (was, now) in result.notes["layers"].items()]
    refused = [f"{item.node} keeps: {item.reason}" for item in result.refused]
    golden("prune_channels", "\n".join([result.graph.text(), *lines, *refused]))


def test_parameters_stay_trainable_and_frozen_ones_frozen(graph: Graph, prune: Prune) -> None:
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


def test_it_keeps_names_mode_and_any_batch_size(graph: Graph, prune: Prune) -> None:
    graph.eval()
    names = [graph.origin(node).name for node in graph.calls]
    pruned = prune(graph, macs=0.5, importance="taylor").graph
    assert [pruned.origin(node).name for node in pruned.calls] == names
    assert not pruned.training
    assert [tuple(pruned(torch.zeros(n, 3, 8, 8)).shape) for n in (1, 3)] == [(1, 5), (3, 5)]


# Targets.


@pytest.mark.parametrize("ranking", ["global", "group"])
@pytest.mark.parametrize("kind", ["macs", "parameters"])
def test_target_is_met_and_no_step_could_be_spared(
    graph: Graph, kind: str, ranking: str, prune: Prune
) -> None:
    before = getattr(cost(graph), kind)
    result = prune(graph, ranking=ranking, **{kind: 0.5})
    after = getattr(cost(result.graph), kind)
    assert result.notes[kind] == [before, after]
    assert after <= 0.5 * before
    dearest = 27 * 64 + 2 * (9 * 64 * 24) + 9 * 16 + 16 * 8  # about what one unit can cost
    assert after > 0.5 * before - (dearest if kind == "macs" else 700)


def test_ratio_counts_channels_that_may_go(graph: Graph, prune: Prune) -> None:
    result = prune(graph, ratio=0.25)
    assert result.notes["channels"] == [92, 69]  # head's 5 not among them
    assert kept(result, "head") == 5


def test_group_ranking_takes_the_same_fraction_everywhere(graph: Graph, prune: Prune) -> None:
    result = prune(graph, ratio=0.5, ranking="group")
    for name, (was, now) in result.notes["layers"].items():
        assert now == (was if name == "head" else was // 2), name


def test_absolute_targets(graph: Graph, prune: Prune) -> None:
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


def test_a_target_that_is_met_already_changes_nothing(graph: Graph, prune: Prune) -> None:
    assert not prune(graph, macs=1.0).changed
    assert not prune(graph, parameters=10**9).changed


# Options.


def test_multiples_come_from_the_target(graph: Graph) -> None:
    result = PruneChannels(macs=0.6).run(graph, Context(target=Eights()))
    assert result.notes["multiple"] == 8
    for name, (was, now) in result.notes["layers"].items():
        assert now == was or now % 8 == 0, name
    (small,) = (item for item in result.refused if item.node == "side.0")
    assert small.reason == "no smaller multiple of 8 leaves at least 1 channels"


def test_an_odd_width_is_cut_to_the_multiple_below(graph: Graph, prune: Prune) -> None:
    result = prune(graph, ratio=0.1, multiple=8, protect=("stem", "side.*", "a.0"))
    assert kept(result, "hidden") == 8


def test_minimum(graph: Graph, prune: Prune) -> None:
    result = prune(graph, ratio=0.5, minimum=7)
    assert all(now >= min(7, was) for was, now in result.notes["layers"].values())


def test_protected_layers_keep_their_channels_and_say_so(graph: Graph, prune: Prune) -> None:
    result = prune(graph, ratio=0.5, protect=("stem", "a.*"))
    assert [kept(result, name) for name in ("stem", "b.0", "depthwise", "a.0")] == [16, 16, 16, 24]
    assert kept(result, "side.0") < 8
    reasons = {item.node: item.reason for item in result.refused}
    assert reasons["b.0"] == "protected by the option protect='stem'"
    assert reasons["a.0"] == "protected by the option protect='a.*'"
    assert reasons["head"] == "part of the model's output"


@pytest.mark.parametrize("importance", list(CRITERIA))
@pytest.mark.parametrize("ranking", ["global", "group"])
def test_the_same_graph_twice(graph: Graph, importance: str, ranking: str, prune: Prune) -> None:
    options = {"ratio": 0.3, "importance": importance, "ranking": ranking}
    first, second = prune(graph.copy(), **options), prune(graph, **options)
    assert first.graph.fingerprint() == second.graph.fingerprint()
    assert first.notes == second.notes


def test_ties_are_spread_and_go_by_position(graph: Graph, prune: Prune) -> None:
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


def test_what_can_be_reached_can_be_reached(graph: Graph, prune: Prune) -> None:
    with pytest.raises(PassError) as caught:
        PruneChannels(parameters=0.001).run(graph, Context())
    least = float(str(caught.value).split("the least is ")[1].split(" ")[0])
    assert prune(graph, parameters=least).changed


def test_a_model_without_layers_has_nothing_to_prune() -> None:
    graph = capture(nn.ReLU(), torch.zeros(2, 3))
    for kind in ("macs", "parameters", "ratio"):
        with pytest.raises(PassError, match=r"has no|at most 0"):
            build_pass("prune-channels", {kind: 0.5}).run(graph, Context())

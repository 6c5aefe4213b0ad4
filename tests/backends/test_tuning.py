"""Tuning on this machine: layers by themselves, what is measured, and what is chosen."""

import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from planish.backends import build
from planish.backends.builder import fill_plan
from planish.backends.choice import Choice
from planish.backends.choosing import offers
from planish.backends.layer import Layer
from planish.backends.lower.dot_product import DotProduct
from planish.backends.lower.strategies import STRATEGIES, Knobs, Strategy, register_strategy
from planish.backends.plan import Plan
from planish.backends.targets import find_target
from planish.backends.tuning.database import Database, Record
from planish.backends.tuning.isolate import Bench
from planish.backends.tuning.measuring import LocalKernel, Settings, measure_here
from planish.backends.tuning.stored import store, store_inputs
from planish.backends.tuning.tasks import collect_tasks
from planish.backends.tuning.tuner import Progress, TuneResult, tune_plan
from planish.ir import Graph
from planish.ir.errors import OperatorError, TargetError

pytestmark = pytest.mark.isa("avx2")
Builder = Any
TARGET = find_target("x86-64-v3")


class Sample(Strategy):
    """The dot product, done several times, wrongly, or not at all."""

    KNOBS: tuple[Knobs, ...] = (
        {"times": 40},
        {"times": 1},
        {"times": 20},
        {"wrong": True},
        {"raises": True},
        {"crashes": True},
    )

    def fits(self, layer: Layer, plan: Plan) -> bool:
        """Layers of one group."""
        del plan
        return layer.groups == 1

    def knobs(self, layer: Layer, plan: Plan) -> Sequence[Knobs]:
        """The slow way first, so that tuning has something to find."""
        del layer, plan
        return self.KNOBS

    def emit(self, layer: Layer, plan: Plan, knobs: Knobs) -> None:
        """Call the dot product."""
        if "raises" in knobs:
            raise OperatorError("this can't be done", where=layer.label)
        if "wrong" in knobs:
            layer = replace(layer, zero_point=layer.zero_point ^ 1)
        for _ in range(int(knobs.get("times", 1))):
            DotProduct().emit(layer, plan, {})
        if "crashes" in knobs:
            # A read far outside of every memory.
            step = plan.steps[-1]
            far = replace(step.pointers[0], elements=1 << 30)
            plan.steps[-1] = replace(step, pointers=(far, *step.pointers[1:]))


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only the sample strategy and those that it stands before."""
    module = types.ModuleType("planish_tests.sample")
    module.Sample = Sample  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "planish_tests.sample", module)
    before = dict(STRATEGIES)
    STRATEGIES.clear()
    STRATEGIES["dot-product"] = before["dot-product"]
    register_strategy("sample", "planish_tests.sample:Sample", before="dot-product")
    yield
    STRATEGIES.clear()
    STRATEGIES.update(before)


@pytest.fixture
def graph(builder: Builder) -> Graph:
    """Three layers of which two are alike."""
    b = builder(3)
    x = b.input(torch.uint8, (1, 16, 12, 12))
    first = b.conv(x, (16, 16, 3, 3), padding=(1, 1, 1, 1), x_zero=7)
    second = b.conv(first, (16, 16, 3, 3), padding=(1, 1, 1, 1))
    return b.finish(b.conv(second, (24, 16, 1, 1)))


def planned(graph: Graph) -> Plan:
    plan = Plan(TARGET, 1)
    fill_plan(graph, plan)
    return plan


Tune = Callable[..., TuneResult]


@pytest.fixture
def tune(graph: Graph, tmp_path: Path) -> Tune:
    """`tune(trials=...)` tunes the graph into the test's own database."""

    def run(**options: Any) -> TuneResult:
        database = Database(tmp_path / "db", TARGET, create=True)
        return tune_plan(planned(graph), database, **{"trials": 100, **options})

    return run


def records(path: Path) -> list[Record]:
    database = Database(path, TARGET, create=False)
    return [record for key in database.workloads for record in database.records(key)]


def test_every_choice_of_isolated_layers_is_exact(builder: Builder, tmp_path: Path) -> None:
    """Layers with a residual, strides, groups, and linear ones, in each way that they offer."""
    b = builder(5)
    x = b.input(torch.uint8, (1, 16, 9, 9))
    strided = b.conv(x, (32, 16, 3, 3), stride=(2, 2), padding=(1, 1, 1, 1), x_zero=3)
    depthwise = b.conv(strided, (32, 1, 3, 3), groups=32, padding=(1, 1, 1, 1))
    plan = planned(b.finish(b.conv(depthwise, (8, 32, 1, 1), dtype=torch.int8)))
    assert len(plan.layers) == 3
    for number, (layer, _) in enumerate(plan.layers):
        bench = Bench(layer, plan)
        folder = tmp_path / str(number)
        folder.mkdir()
        store_inputs(folder, bench.filled(), bench.output)
        choices = list(offers(layer, plan))
        first = store(folder / "first", bench.build(choices[0]))
        for other in choices[1:2] + choices[-1:]:
            place = folder / f"{other.strategy}{sorted(other.knobs.items())}"
            if not place.exists():
                timed = measure_here(
                    str(store(place, bench.build(other))), str(first), Settings(1, 0.001)
                )
                assert timed.difference == 0, other
                assert timed.values == np.prod(bench.output.shape)
                assert timed.us > 0


def test_an_isolated_layer_computes_what_the_network_does(builder: Builder, tmp_path: Path) -> None:
    b = builder(3)
    x = b.input(torch.uint8, (1, 16, 12, 12))
    graph = b.finish(b.conv(x, (24, 16, 3, 3), padding=(1, 1, 1, 1), x_zero=7))
    plan = planned(graph)
    layer, choice = plan.layers[0]
    bench = Bench(layer, plan)
    memory = bench.filled()
    padded = np.ndarray((1, 14, 14, 16), layer.x.layout.dtype, memory)
    assert (padded[:, 0] == 7).all(), "the border is the zero point"
    store_inputs(tmp_path, memory, bench.output)
    kernel = LocalKernel(store(tmp_path / "kernel", bench.build(choice)))
    image = padded[:, 1:-1, 1:-1].transpose(0, 3, 1, 2).astype(np.uint8)
    want = graph(torch.from_numpy(image))[0].numpy()
    assert np.array_equal(kernel.first_output().transpose(0, 3, 1, 2), want)


def test_equal_layers_are_one_task(graph: Graph) -> None:
    plan = planned(graph)
    tasks = collect_tasks(plan)
    assert [len(task.labels) for task in tasks] == [2, 1]
    assert [task.base for task in tasks] == [task.untuned for task in tasks]
    assert tasks[0].new(set())[0] == 0
    assert tasks[0].new({tasks[0].keys[0]})[0] == 1


@pytest.mark.usefixtures("sample")
def test_the_fastest_exact_choice_is_found(tune: Tune, graph: Graph, tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = tune(progress=seen.append)
    # six settings of the sample strategy and the dot product, for two workloads
    assert result.trials == 14
    assert result.stopped is None
    # "times": 1 and the dot product itself are the same code
    chosen = [(layer.strategy, layer.knobs) for layer in result.layers]
    assert all(choice in (("sample", {"times": 1}), ("dot-product", {})) for choice in chosen)
    assert all(layer.tuned for layer in result.layers)
    assert result.tuned_us < result.untuned_us / 5
    assert [(layer.measured, layer.offered) for layer in result.layers] == [(4, 7), (4, 7)]
    errors = [record.error for record in records(tmp_path / "db") if record.error]
    assert sum("wrong numbers" in error for error in errors) == 2
    assert sum("this can't be done" in error for error in errors) == 2
    assert sum("ended with status -11" in error for error in errors) == 2
    assert any("wrong numbers" in error for error in result.errors)
    assert [progress.trial for progress in seen[:14]] == list(range(1, 15))
    assert seen[-1].network_tuned_us == pytest.approx(result.tuned_us)

    database = Database(tmp_path / "db", TARGET, create=False)
    plan = Plan(TARGET, 1, database=database)
    fill_plan(graph, plan)
    assert [(c.strategy, c.knobs) for _, c in plan.layers] == [chosen[0], chosen[0], chosen[1]]
    assert {choice.source for _, choice in plan.layers} == {"database"}
    x = np.random.default_rng(0).integers(0, 256, (1, 16, 12, 12), np.uint8)
    have = build(graph, TARGET, database=database)(x)
    assert np.array_equal(have[0], graph(torch.from_numpy(x))[0].numpy())


@pytest.mark.usefixtures("sample")
def test_tuning_goes_on_where_it_ended(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sample, "KNOBS", Sample.KNOBS[:3])
    first = tune(trials=3)
    assert (first.trials, first.stopped) == (3, "trials")
    known = [(record.workload, record.choice) for record in records(tmp_path / "db")]
    assert len(set(known)) == 3
    second = tune()
    assert (second.trials, second.stopped) == (5, None)
    third = tune()
    assert third.trials == 0
    assert third.layers == second.layers


@pytest.mark.usefixtures("sample")
def test_few_trials_measure_the_rules_own_choice_first(tune: Tune, tmp_path: Path) -> None:
    tune(trials=2)
    assert [record.knobs for record in records(tmp_path / "db")] == [{"times": 40}] * 2


@pytest.mark.usefixtures("sample")
def test_time_ends_it(tune: Tune) -> None:
    result = tune(seconds=0.001)
    assert result.stopped == "time"
    assert result.trials < 14


@pytest.mark.usefixtures("sample")
def test_a_base_that_can_not_be_built_is_an_error(
    tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sample, "KNOBS", ({"raises": True}, {"times": 1}))
    with pytest.raises(OperatorError, match="can't be done"):
        tune()


def test_a_choice_that_a_layer_does_not_offer_is_not_taken(graph: Graph, tmp_path: Path) -> None:
    """A record of another version of planish, or of weights that prove more."""
    plan = planned(graph)
    task = collect_tasks(plan)[0]
    database = Database(tmp_path / "db", TARGET, create=True)
    base = (task.base.strategy, task.base.knobs)
    database.add(Record(task.workload, base[0], base[1], base, 100.0, 100.0, 9, "local"))
    database.add(Record(task.workload, "gone", {"a": 1}, base, 10.0, 100.0, 9, "local"))
    assert database.find(task.workload) == Choice("gone", {"a": 1}, "database")
    again = Plan(TARGET, 1, database=database)
    fill_plan(graph, again)
    assert [choice for _, choice in again.layers] == [choice for _, choice in plan.layers]


def test_a_target_that_this_machine_can_not_run(graph: Graph, tmp_path: Path) -> None:
    foreign = replace(TARGET, cpu_flags=frozenset({"avx2", "no-such-flag"}))
    plan = Plan(foreign, 1)
    fill_plan(graph, plan)
    with pytest.raises(TargetError, match=r"needs no-such-flag; .*--rpc-tracker"):
        tune_plan(plan, Database(tmp_path / "db", foreign, create=True), trials=1)

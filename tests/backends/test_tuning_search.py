"""The walks through a layer's choices, with made-up times instead of measurements."""

from concurrent.futures import Future
from itertools import product
from typing import Any

from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.builder import BuilderInput, BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.runner import PyRunner, RunnerFuture, RunnerInput
from tvm.s_tir.schedule import Schedule

from planish.backends.choice import Choice
from planish.backends.tuning.measuring import Timed
from planish.backends.tuning.runners import KernelFuture
from planish.backends.tuning.search import Context, Enumeration, KnobModel, evolution, features
from planish.backends.tuning.space import design_space, neighbours, noted, stand_in, with_choice

# 200 choices of two strategies; the best is the one at rows 3, columns 9.
CHOICES = [Choice("a", {"rows": r, "columns": c}) for r, c in product(range(1, 5), range(1, 26))]
CHOICES += [Choice("b", {"rows": r, "kind": k}) for r, k in product(range(1, 51), ("x", "y"))]
SECONDS = [
    1 + abs(choice.knobs["rows"] - 3) + abs(choice.knobs["columns"] - 9)
    if choice.strategy == "a"
    else 50 + choice.knobs["rows"]
    for choice in CHOICES
]
BEST = SECONDS.index(1)


@derived_object
class Builder(PyBuilder):
    def __init__(self, seen: list[tuple[str, int]]) -> None:
        super().__init__()
        self._seen = seen

    def build(self, build_inputs: list[BuilderInput]) -> list[BuilderResult]:
        found = [noted(item.mod) for item in build_inputs]
        self._seen += found
        return [BuilderResult(str(number), None) for _, number in found]


@derived_object
class Runner(PyRunner):
    def run(self, runner_inputs: list[RunnerInput]) -> list[RunnerFuture]:
        futures: list[Any] = []
        for item in runner_inputs:
            outcome: Future[Timed | str] = Future()
            outcome.set_result(Timed(SECONDS[int(item.artifact_path)], 1.0, 1, 0, 1))
            futures.append(KernelFuture(outcome))
        return futures


def search(trials: int, **strategies: Any) -> list[tuple[str, int]]:
    """Return what is measured, in order, for workloads with these strategies."""
    seen: list[tuple[str, int]] = []
    scheduler = ms.task_scheduler.GradientBased(seed=1)
    builder: Any = Builder(seen)
    runner: Any = Runner()
    model: Any = KnobModel(dict.fromkeys(strategies, CHOICES))
    scheduler.tune(
        [Context(name, CHOICES, strategy, 7) for name, strategy in strategies.items()],
        [1.0] * len(strategies),
        trials,
        1000,
        8,
        builder,
        runner,
        [ms.measure_callback.UpdateCostModel(), ms.measure_callback.AddToDatabase()],
        ms.database.MemoryDatabase(),
        model,
    )
    return seen


def test_a_schedule_notes_its_choice() -> None:
    module = stand_in("layer")
    (space,) = design_space(CHOICES).generate_design_space(module)
    for number in (0, 57, len(CHOICES) - 1):
        assert noted(with_choice(module, space, number).mod) == ("layer", number)


def test_unlike_layers_are_unlike_workloads() -> None:
    database = ms.database.MemoryDatabase()
    database.commit_workload(stand_in("a"))
    assert database.has_workload(stand_in("a"))
    assert not database.has_workload(stand_in("b"))


def test_enumeration_keeps_its_order() -> None:
    order = [5, 3, *range(20, 40)]
    assert search(1000, only=Enumeration(order)) == [("only", number) for number in order]


def test_evolution_begins_with_the_rules_and_finds_fast_choices() -> None:
    seen = search(48, layer=evolution(len(CHOICES), [0, 150]))
    numbers = [number for _, number in seen]
    assert numbers[:2] == [0, 150]
    assert len(set(numbers)) == len(numbers)
    assert 40 <= len(numbers) <= 56
    # A quarter of the choices was measured: what was found is among the fastest twentieth.
    assert sorted(SECONDS).index(min(SECONDS[n] for n in numbers)) < len(CHOICES) // 20


def test_layers_share_the_trials() -> None:
    first, second = Enumeration(range(60)), evolution(len(CHOICES), [0])
    seen = search(64, first=first, second=second)
    assert {name for name, _ in seen} == {"first", "second"}
    assert 64 <= len(seen) <= 72


def test_the_model_learns_which_knobs_are_fast() -> None:
    (space,) = design_space(CHOICES).generate_design_space(stand_in("layer"))

    def candidates(numbers: list[int]) -> list[ms.MeasureCandidate]:
        schedules: list[Schedule] = [with_choice(stand_in("layer"), space, n) for n in numbers]
        return [ms.MeasureCandidate(schedule, []) for schedule in schedules]

    strategy: Any = Enumeration([])
    context = Context("layer", CHOICES, strategy, 1)
    model: Any = KnobModel({"layer": CHOICES})
    far = next(i for i, choice in enumerate(CHOICES) if choice.strategy == "b")
    assert model.predict(context, candidates([BEST, far])).tolist() == [1, 1]
    taught = list(range(0, len(CHOICES), 3))
    results = [ms.runner.RunnerResult([float(SECONDS[n])], None) for n in taught]
    model.update(context, candidates(taught), results)
    near, slow, wide = model.predict(context, candidates([BEST, far + 1, 24]))
    assert near > wide > slow > 0


def test_features() -> None:
    rows = features([Choice("a", {"n": 8}), Choice("b", {"n": 2, "k": "x"}), Choice("a", {})])
    by_column = [column.tolist() for column in rows.T]
    # strategy=a, strategy=b, k=x, and n by rank
    assert by_column == [[1, 0, 1], [0, 1, 0], [0, 1, 0], [1, 0, -1]]


def test_neighbours_differ_in_one_knob() -> None:
    found = [CHOICES[i] for i in neighbours(CHOICES, 0)]
    assert {choice.strategy for choice in found} == {"a"}
    assert all(
        sum(choice.knobs[name] != CHOICES[0].knobs[name] for name in choice.knobs) == 1
        for choice in found
    )
    assert len(found) == 3 + 24


def test_evolution_repeats_itself() -> None:
    runs = [search(24, layer=evolution(len(CHOICES), [0])) for _ in range(2)]
    assert runs[0] == runs[1]

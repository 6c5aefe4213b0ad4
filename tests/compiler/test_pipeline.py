"""What the pipeline does around each pass: checks, records, dumps, measures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import planish
from planish import Pipeline, passes
from planish.ir import (
    DataError,
    Graph,
    Level,
    Numerics,
    OptionError,
    PassError,
    PipelineError,
    PlanishError,
    VerifyError,
)
from planish.passes import Context, Pass, PassResult

Batches = list[tuple[torch.Tensor, torch.Tensor]]
FULL = [
    passes.PruneChannels(macs=0.6, multiple=4),
    passes.InsertTeacherHooks(),
    passes.Train(epochs=1),
    passes.RemoveTeacherHooks(),
    passes.FoldBatchNorm(),
    passes.InsertQDQ(),
    passes.LowerToInteger(),
]


@dataclass(frozen=True)
class Scale(Pass):
    """Multiply the head's weight; lies about it where told to."""

    name: ClassVar[str] = "scale"
    preserves: ClassVar[Numerics] = Numerics.CHANGES
    factor: float = 2.0
    claims: bool = True

    def run(self, graph: Graph, context: Context) -> PassResult:
        del context
        weight = graph.attribute("head.weight").detach()
        graph.set_attribute("head.weight", weight * self.factor, trainable=True)
        return PassResult(graph, self.claims, notes={"factor": self.factor})


@dataclass(frozen=True)
class ScaleExactly(Scale):
    name: ClassVar[str] = "scale-exactly"
    preserves: ClassVar[Numerics] = Numerics.EXACT


@dataclass(frozen=True)
class ScaleClosely(Scale):
    name: ClassVar[str] = "scale-closely"
    preserves: ClassVar[Numerics] = Numerics.CLOSE


@dataclass(frozen=True)
class Fails(Pass):
    name: ClassVar[str] = "fails"

    def run(self, graph: Graph, context: Context) -> PassResult:
        del graph, context
        raise PassError("it can't", where="layer 3")


@dataclass(frozen=True)
class Crashes(Pass):
    name: ClassVar[str] = "crashes"

    def run(self, graph: Graph, context: Context) -> PassResult:
        del graph, context
        raise ZeroDivisionError


@dataclass(frozen=True)
class Lies(Pass):
    name: ClassVar[str] = "lies"
    ensures: ClassVar[Level | None] = Level.INTEGER

    def run(self, graph: Graph, context: Context) -> PassResult:
        del context
        return PassResult(graph, changed=False)


@dataclass(frozen=True)
class Annotates(Pass):
    name: ClassVar[str] = "annotates"

    def run(self, graph: Graph, context: Context) -> PassResult:
        del context
        graph.annotations["secret"] = 1
        return PassResult(graph, changed=True)


@dataclass(frozen=True)
class Breaks(Pass):
    name: ClassVar[str] = "breaks"

    def run(self, graph: Graph, context: Context) -> PassResult:
        del context
        weight = graph.attribute("head.weight").detach()
        graph.set_attribute("head.weight", weight * float("nan"), trainable=True)
        return PassResult(graph, changed=True)


def test_the_given_graph_is_untouched(graph: Graph) -> None:
    before = graph.fingerprint()
    result = Pipeline([Scale()]).run(graph)
    assert graph.fingerprint() == before
    assert graph.history == []
    assert result.graph.fingerprint() != before


def test_history(graph: Graph) -> None:
    entry = Pipeline([Scale(factor=3.0)]).run(graph, seed=7).graph.history[0]
    assert (entry.name, entry.options, entry.seed) == ("scale", {"factor": 3.0}, 7)
    assert entry.changed
    assert entry.notes == {"factor": 3.0}
    assert entry.seconds > 0


def test_history_goes_on(graph: Graph) -> None:
    once = Pipeline([Scale()]).run(graph).graph
    assert [entry.name for entry in Pipeline([Scale()]).run(once).graph.history] == ["scale"] * 2


def test_a_graph_as_option_is_named_in_the_history(graph: Graph, batches: Batches) -> None:
    steps = [passes.InsertTeacherHooks(teacher=graph), passes.RemoveTeacherHooks()]
    options = Pipeline(steps).run(graph, batches).graph.history[0].options
    assert options == {"teacher": f"graph:{graph.fingerprint()[:12]}"}


@pytest.mark.parametrize(
    ("item", "claim"),
    [(Scale(claims=False), "reports no change"), (Scale(factor=1.0), "reports a change")],
)
def test_changed_is_checked(graph: Graph, item: Pass, claim: str) -> None:
    with pytest.raises(PipelineError, match=claim):
        Pipeline([item]).run(graph)


def test_level_is_checked(graph: Graph) -> None:
    with pytest.raises(PipelineError, match="promises a integer graph and left a canonical one"):
        Pipeline([Lies()]).run(graph)


def test_annotations_are_checked(graph: Graph) -> None:
    with pytest.raises(PipelineError, match=r"left \['secret'\]"):
        Pipeline([Annotates()]).run(graph)


@pytest.mark.parametrize("item", [ScaleExactly(), ScaleClosely(factor=1.01)])
def test_numeric_promises_are_checked_when_asked(graph: Graph, item: Pass) -> None:
    Pipeline([item]).run(graph)
    with pytest.raises(PipelineError, match=f"{item.name} promises outputs"):
        Pipeline([item], check_numerics=True).run(graph)


def test_rounding_is_close(graph: Graph) -> None:
    Pipeline([ScaleClosely(factor=1 + 1e-6)], check_numerics=True).run(graph)


def test_numerics_are_checked_on_the_data(graph: Graph, batches: Batches) -> None:
    Pipeline([passes.FoldBatchNorm()], check_numerics=True).run(graph, batches)


def test_verification(graph: Graph) -> None:
    with pytest.raises(VerifyError, match="NaN") as caught:
        Pipeline([Scale(), Breaks()]).run(graph)
    assert "pass 2 of 2, breaks, after: scale" in str(caught.value)
    Pipeline([Breaks()], verify=False).run(graph)


def test_an_error_names_the_passes_that_ran(graph: Graph) -> None:
    with pytest.raises(PassError) as caught:
        Pipeline([Scale(), Fails()]).run(graph)
    assert str(caught.value) == "it can't; at layer 3 (pass 2 of 2, fails, after: scale)"


def test_a_crash_is_noted(graph: Graph) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        Pipeline([Crashes()]).run(graph)
    assert caught.value.__notes__ == ["in pass 1 of 1, crashes, after: none"]


def test_dumps(graph: Graph, tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    Pipeline([passes.FoldBatchNorm(), Scale()], dump=folder).run(graph)
    names = ["00-input.txt", "01-fold-batch-norm.txt", "02-scale.txt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / names[0]).read_text() == graph.text()
    assert "batch_norm" not in (folder / names[1]).read_text()


def test_dumps_where_a_file_stands(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlanishError, match="can't make the folder for dumps"):
        Pipeline([Scale()], dump=tmp_path / "file").run(graph)


@pytest.mark.parametrize(("stop", "ran"), [(1, 1), ("scale", 2), ("fold-batch-norm", 1)])
def test_stop_after(graph: Graph, stop: str | int, ran: int) -> None:
    pipeline = Pipeline([passes.FoldBatchNorm(), Scale(), Fails()], stop_after=stop)
    assert len(pipeline.run(graph).graph.history) == ran


@pytest.mark.parametrize(("stop", "cure"), [("scal", "did you mean 'scale'"), (2, "1 to 1")])
def test_stop_after_nothing(stop: str | int, cure: str) -> None:
    with pytest.raises(OptionError, match=cure):
        Pipeline([Scale()], stop_after=stop)


def test_stages(graph: Graph, batches: Batches) -> None:
    report = Pipeline(FULL).run(graph, batches, validation=batches).report
    names = ["input", "prune-channels", "remove-teacher-hooks"]
    names += ["fold-batch-norm", "insert-qdq", "lower-to-integer"]
    assert [stage.name for stage in report.stages] == names
    assert all(stage.accuracy is not None for stage in report.stages)
    first, pruned, last = report.stages[0], report.stages[1], report.stages[-1]
    assert first.parameters == sum(p.numel() for p in graph.parameters())
    assert first.macs == 64 * (3 * 16 * 9 + 16 * 16 * 9) + 160
    assert pruned.macs <= 0.6 * first.macs
    assert last.bytes < first.bytes / 2
    assert report.int8_mac_coverage == 1
    assert len(report.layers_before) == len(report.layers_after) == 3


def test_evaluate_replaces_validation(graph: Graph) -> None:
    def measure(graph: Graph) -> dict[str, float]:
        return {"accuracy": 0.5, "weight": graph.attribute("head.weight").abs().sum().item()}

    stages = Pipeline([Scale()]).run(graph, evaluate=measure).report.stages
    assert [stage.accuracy for stage in stages] == [0.5, 0.5]
    assert stages[1].metrics["weight"] == pytest.approx(2 * stages[0].metrics["weight"])


def test_equal_seeds_give_equal_graphs(graph: Graph, batches: Batches) -> None:
    runs = [Pipeline(FULL).run(graph, batches, seed=seed).graph for seed in (3, 3)]
    assert runs[0].fingerprint() == runs[1].fingerprint()


def test_random_state_is_left_alone(graph: Graph, batches: Batches) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    Pipeline([passes.Train()]).run(graph, batches)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "insert-qdq needs data"),
        ([], "no batches"),
        ([torch.rand(4, 3, 9, 8)], "has shape"),
        ([torch.rand(4, 3, 8, 8).double()], "has dtype f64"),
        ([torch.full((4, 3, 8, 8), float("nan"))], "NaN or infinity"),
        ([torch.full((4, 3, 8, 8), float("inf"))], "NaN or infinity"),
        ([(torch.rand(4, 3, 8, 8),) * 3], "has 3 entries"),
        (torch.rand(4, 3, 8, 8), "a single array"),
        (7, "can't be iterated"),
        ("nowhere.npz", "no such file"),
    ],
)
def test_bad_data(graph: Graph, data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Pipeline([passes.InsertQDQ()]).run(graph, data)


def test_a_generator_for_two_readers(graph: Graph, batches: Batches) -> None:
    steps = [passes.Train(), passes.InsertQDQ()]
    with pytest.raises(DataError, match="only once, and train and insert-qdq read it"):
        Pipeline(steps).run(graph, iter(batches))


def test_a_generator_for_one_reader(graph: Graph, batches: Batches) -> None:
    Pipeline([passes.InsertQDQ()]).run(graph, iter(batches))


def test_validation_needs_labels(graph: Graph) -> None:
    with pytest.raises(DataError, match="validation needs labels"):
        Pipeline([Scale()]).run(graph, validation=[torch.rand(4, 3, 8, 8)])


def test_unknown_target(graph: Graph) -> None:
    with pytest.raises(OptionError, match="did you mean 'x86-64-v3'"):
        Pipeline([Scale()]).run(graph, target="x86-64-v33")


def test_evaluation_keeps_the_mode(graph: Graph, batches: Batches) -> None:
    from planish.evaluate import graph_accuracy

    for trained in (graph.train(), graph.eval()):
        before = trained.fingerprint()
        graph_accuracy(trained, batches)
        assert trained.fingerprint() == before


def test_compiled_equals_the_reference(graph: Graph, batches: Batches) -> None:
    integer = Pipeline(FULL).run(graph, batches, target="x86-64-v3").graph
    image = batches[0][0][:1]
    found = planish.compile(integer, "x86-64-v3")(image.numpy())
    assert (found == integer(image).numpy()).all()

"""Orders of passes: those that can't work are refused with the cure, when they are built."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest

from planish import Pipeline, passes
from planish.ir import Graph, Level, PipelineError
from planish.passes import Context, Pass, PassResult

fold, prune, qdq = passes.FoldBatchNorm(), passes.PruneChannels(macs=0.5), passes.InsertQDQ()
lower, canonicalize = passes.LowerToInteger(), passes.Canonicalize()
insert, train, remove = passes.InsertTeacherHooks(), passes.Train(), passes.RemoveTeacherHooks()


@pytest.mark.parametrize(
    "order",
    [
        [fold],
        [lower],
        [canonicalize, prune, fold, qdq, lower],
        [prune, insert, train, remove, fold, qdq, lower],
        [fold, qdq, train, lower],
        [train, remove],  # the graph may come with hooks
        [train, train],
    ],
)
def test_possible_orders(order: Sequence[Pass]) -> None:
    assert Pipeline(order).passes == tuple(order)


@pytest.mark.parametrize(
    ("order", "parts"),
    [
        (
            [fold, qdq, lower, prune],
            [
                "prune-channels must stand before insert-qdq",
                "it needs a canonical graph and would get an integer one",
                "move it to position 2",
            ],
        ),
        ([lower, prune], ["prune-channels must stand before lower-to-integer", "position 1"]),
        (
            [canonicalize, lower, qdq],
            ["lower-to-integer must stand after insert-qdq", "position 3"],
        ),
        ([fold, lower], ["lower-to-integer can't run", "put insert-qdq before it"]),
        (
            [insert, fold, remove],
            ["fold-batch-norm must stand before insert-teacher-hooks", "teacher-hooks"],
        ),
        (
            [remove, insert],
            ["remove-teacher-hooks must stand after insert-teacher-hooks", "position 2"],
        ),
        ([insert, insert], ["insert-teacher-hooks", "position 2 of 2"]),
        ([insert, remove, remove], ["remove-teacher-hooks", "position 3 of 3"]),
    ],
)
def test_impossible_orders(order: Sequence[Pass], parts: list[str]) -> None:
    with pytest.raises(PipelineError) as caught:
        Pipeline(order)
    for part in parts:
        assert part in str(caught.value)


def test_the_cure_works() -> None:
    Pipeline([fold, prune, qdq, lower])  # as the first message above advises


def test_starting_level_is_checked_before_anything_runs(graph: Graph) -> None:
    with pytest.raises(PipelineError, match="put insert-qdq before it"):
        Pipeline([lower]).run(graph)


def test_starting_annotations_are_checked(graph: Graph) -> None:
    with pytest.raises(PipelineError, match="needs teacher-hooks"):
        Pipeline([remove]).run(graph)


def test_what_is_no_pass() -> None:
    with pytest.raises(PipelineError, match="a str is no pass; at position 2 of 2"):
        Pipeline([fold, "insert-qdq"])  # type: ignore[list-item]


def test_no_pass_leads_there() -> None:
    @dataclass(frozen=True)
    class Backwards(Pass):
        name: ClassVar[str] = "backwards"
        requires: ClassVar[tuple[Level, ...]] = (Level.CAPTURED,)

        def run(self, graph: Graph, context: Context) -> PassResult:
            raise AssertionError((graph, context))

    with pytest.raises(PipelineError, match="backwards must stand before canonicalize"):
        Pipeline([canonicalize, Backwards()])

"""The pipeline: passes in the written order, each one checked, timed and recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from planish.ir.errors import DataError, ModelError, OptionError, PipelineError, unknown
from planish.ir.graph import Graph
from planish.passes.base import Pass
from planish.passes.context import Context, Progress, TargetTraits
from planish.passes.data import batches

from .data_sources import open_data
from .order import State, check_order
from .recipe import python_form, read_recipe, write_recipe
from .report import Report
from .runner import Runner, Settings

if TYPE_CHECKING:
    from planish.backends.target import Target

Metrics = Callable[[Graph], dict[str, float]]


@dataclass(frozen=True)
class PipelineResult:
    """What a pipeline made: the graph after the last pass, and the report."""

    graph: Graph
    report: Report


class Pipeline:
    """Passes in the order in which they are written.

    Args:
        passes: At least one. An order that can't work is an error right here.
        verify: Check every invariant of the graph after each pass.
        check_numerics: Compare outputs before and after each pass that promises to keep them.
        dump: Folder for the graph's text before the first and after each pass, numbered.
        stop_after: Name or position (from 1) of the pass to stop after.

    Raises:
        PipelineError: An impossible order (with the cure), or an entry that is no pass.
        OptionError: `stop_after` names no pass of this pipeline.
    """

    def __init__(
        self,
        passes: Sequence[Pass],
        *,
        verify: bool = True,
        check_numerics: bool = False,
        dump: str | os.PathLike[str] | None = None,
        stop_after: str | int | None = None,
    ) -> None:
        self.passes = tuple(passes)
        for position, item in enumerate(self.passes, 1):
            if not isinstance(item, Pass):
                raise PipelineError(
                    f"a {type(item).__name__} is no pass",
                    where=f"position {position} of {len(self.passes)}",
                    cure="write passes.FoldBatchNorm(), or Pipeline.from_toml for names",
                )
        check_order(self.passes)
        self.verify = verify
        self.check_numerics = check_numerics
        self.dump = dump
        self.stop_after = stop_after
        self._count = self._stop_index()

    def run(
        self,
        graph: Graph,
        data: Any = None,
        *,
        validation: Any = None,
        loss: Callable[[Any, torch.Tensor], torch.Tensor] | None = None,
        target: str | Target | None = None,
        seed: int = 0,
        device: str = "cpu",
        progress: Progress | None = None,
        evaluate: Metrics | None = None,
    ) -> PipelineResult:
        """Run the passes on a copy of `graph`.

        The same graph, data and seed give the same result, bit for bit; the caller's random state
        is left alone.

        Args:
            graph: At the level that the first pass requires.
            data: Batches for calibration and training: any iterable of arrays, tensors, tuples
                or dicts, or the path of an .npz file. Iterated anew by each pass that reads it.
            validation: Labelled batches; each stage's accuracy in the report is measured on them.
            loss: `loss(outputs, labels)` for training; cross entropy by default.
            target: The hardware to compress for, by name or as a Target.
            seed: Of everything random.
            device: Where training and calibration run.
            progress: Where long work is reported.
            evaluate: Returns metrics of a graph, in place of `validation`; "accuracy" is the
                stage's accuracy, everything else ends in its `metrics`.

        Raises:
            PipelineError: The graph's level doesn't fit the first pass, or a pass broke its
                contract.
            DataError: A pass needs data or labels that aren't there, or that don't fit.
            PlanishError: Whatever a pass raises; the error names the passes that ran before.
        """
        if not isinstance(graph, Graph):
            raise ModelError(
                f"a {type(graph).__name__} is no graph", cure="capture the model first"
            )
        _check_device(device)
        check_order(self.passes, _state_of(graph))
        context = Context(
            data=self._reusable(open_data(data)),
            validation=open_data(validation),
            loss=loss,
            target=_find_target(target),
            seed=seed,
            device=device,
            progress=progress or Progress(),
            original=graph,
        )
        self._check_data(graph, context)
        settings = Settings(self.verify, self.check_numerics, self.dump, evaluate)
        return PipelineResult(*Runner(self.passes[: self._count], context, settings).run(graph))

    @staticmethod
    def from_toml(recipe: str | os.PathLike[str]) -> Pipeline:
        """Build a pipeline from a recipe: the path of a TOML file, or TOML text (see `recipe`)."""
        read = read_recipe(recipe)
        try:
            return Pipeline(read.passes, **read.options)
        except (PipelineError, OptionError) as error:
            error.where = f"{read.where}, {error.where}" if error.where else read.where
            raise

    def to_toml(self) -> str:
        """Return the recipe that `from_toml` builds this pipeline from."""
        return write_recipe(self.passes, self._options())

    def to_python(self) -> str:
        """Return the Python expression that builds this pipeline."""
        return python_form(self.passes, self._options())

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Pipeline)
            and self.passes == other.passes
            and self._options() == other._options()
        )

    def __hash__(self) -> int:
        return hash(tuple(item.name for item in self.passes))

    def __repr__(self) -> str:
        return self.to_python()

    def _options(self) -> dict[str, Any]:
        """Return the options as plain values, by name."""
        return {
            "verify": self.verify,
            "check_numerics": self.check_numerics,
            "dump": None if self.dump is None else os.fspath(self.dump),
            "stop_after": self.stop_after,
        }

    def _stop_index(self) -> int:
        """Return how many passes run."""
        stop = self.stop_after
        if stop is None:
            return len(self.passes)
        if isinstance(stop, int):
            if not 1 <= stop <= len(self.passes):
                raise OptionError(
                    f"stop_after={stop} is no position of this pipeline",
                    cure=f"choose 1 to {len(self.passes)}",
                )
            return stop
        names = [item.name for item in self.passes]
        if stop not in names:
            raise unknown("pass of this pipeline", stop, names)
        return len(names) - names[::-1].index(stop)

    def _reusable(self, data: Iterable[Any] | None) -> Iterable[Any] | None:
        """Refuse an iterator that the first of several readers would use up."""
        if data is None or iter(data) is not data:
            return data
        readers = [item.name for item in self.passes[: self._count] if item.needs_data]
        if len(readers) > 1 or self.check_numerics:
            raise DataError(
                f"the data can be read only once, and {' and '.join(readers)} read it",
                cure="pass a list, a DataLoader or an object with __iter__, not a generator",
            )
        return data

    def _check_data(self, graph: Graph, context: Context) -> None:
        """Look at the first batch before any work is done."""
        running = self.passes[: self._count]
        reader = next((item for item in running if item.needs_data or item.needs_labels), None)
        if reader is not None and (context.data is None or iter(context.data) is not context.data):
            first = next(batches(context.data, graph, reader.name))
            labelled = next((item for item in running if item.needs_labels), None)
            if labelled is not None and first.labels is None:
                raise DataError(
                    f"{labelled.name} needs labels", cure="yield (inputs, labels) batches"
                )
        if context.validation is None:
            return
        if next(batches(context.validation, graph, "validation")).labels is None:
            raise DataError("validation needs labels", cure="yield (inputs, labels) batches")


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"unknown device {device!r}", cure="choose cpu or cuda") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise OptionError(f"device {device!r}: this torch finds no GPU", cure="choose cpu")


def _state_of(graph: Graph) -> State:
    return State(frozenset({graph.level}), frozenset(graph.annotations), known=True)


def _find_target(target: str | Target | None) -> TargetTraits | None:
    if target is None:
        return None
    from planish.backends.targets import find_target

    return find_target(target)

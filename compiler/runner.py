"""One run of a pipeline: what happens around each pass."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from planish.ir.coverage import int8_coverage
from planish.ir.errors import PipelineError, PlanishError, VerifyError
from planish.ir.files import make_folder, write_beside
from planish.ir.graph import Graph
from planish.ir.history import HistoryEntry
from planish.ir.level import Level, Numerics
from planish.ir.verifier import verify
from planish.passes.base import Pass, PassResult
from planish.passes.context import Context

from .evaluate import graph_accuracy
from .measure import layers, macs, parameters, stored_bytes
from .numerics import Samples, check_preserved, sample_inputs
from .report import Report, Stage


@dataclass(frozen=True)
class Settings:
    """How carefully a pipeline runs; see `Pipeline`."""

    verify: bool = True
    check_numerics: bool = False
    dump: str | os.PathLike[str] | None = None
    evaluate: Callable[[Graph], dict[str, float]] | None = None


class Runner:
    """Runs passes on a graph and keeps the books."""

    def __init__(self, passes: Sequence[Pass], context: Context, settings: Settings) -> None:
        self.passes = passes
        self.context = context
        self.settings = settings
        self.stages: list[Stage] = []
        self._seconds = 0.0  # of the passes since the last stage

    def run(self, graph: Graph) -> tuple[Graph, Report]:
        """Return the graph after the last pass, and the report; `graph` is left as it is."""
        current = graph.copy()
        layers_before = [layer.to_json() for layer in layers(graph)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.context.seed)
            samples = self._samples(current)
            self._dump(0, "input", current)
            self._add_stage("input", current)
            for position, item in enumerate(self.passes, 1):
                with _Blame(self.passes, position):
                    current = self._step(position, item, current, samples)
        return current, self._report(current, layers_before)

    def _step(self, position: int, item: Pass, graph: Graph, samples: Samples | None) -> Graph:
        self.context.progress.status(f"{position}/{len(self.passes)} {item.name}")
        before = graph.fingerprint()
        level, annotations, history = graph.level, frozenset(graph.annotations), graph.history
        kept = item.preserves is not Numerics.CHANGES
        expected = samples.outputs(graph) if samples and kept else None
        torch.manual_seed(self.context.seed)
        start = time.perf_counter()
        result = item.run(graph, self.context)
        seconds = time.perf_counter() - start
        after = result.graph
        _check_contract(item, result, level, annotations)
        if result.changed != (after.fingerprint() != before):
            claim = "a change" if result.changed else "no change"
            raise PipelineError(
                f"{item.name} reports {claim}, but the graph is "
                f"{'the same' if result.changed else 'different'}",
                cure="this is a bug in the pass: correct PassResult.changed",
            )
        if self.settings.verify:
            verify(after, after=item.name)
        if samples and expected is not None:
            check_preserved(item, expected, samples.outputs(after))
        entry = HistoryEntry(
            item.name,
            {name: _plain(value) for name, value in item.options().items()},
            self.context.seed,
            result.changed,
            tuple(result.refused),
            result.notes,
            seconds,
        )
        after.history = [*history, entry]
        self._dump(position, item.name, after)
        self._seconds += seconds
        self._add_stage(item.name, after, changed=result.changed)
        return after

    def _samples(self, graph: Graph) -> Samples | None:
        if not self.settings.check_numerics:
            return None
        return sample_inputs(graph, self.context.data, self.context.seed)

    def _dump(self, position: int, name: str, graph: Graph) -> None:
        if self.settings.dump is None:
            return
        folder = make_folder(self.settings.dump, "the folder for dumps")
        write_beside(folder / f"{position:02d}-{name}.txt", graph.text().encode())

    def _add_stage(self, name: str, graph: Graph, *, changed: bool = True) -> None:
        """Weigh the graph, unless it carries something that a later pass takes away again."""
        if graph.annotations:
            return
        if not changed and self.stages:
            metrics = dict(self.stages[-1].metrics)
            accuracy = self.stages[-1].accuracy
        else:
            metrics = self._evaluate(graph, name)
            accuracy = metrics.pop("accuracy", None)
        self.stages.append(
            Stage(
                name=name,
                level=graph.level.label,
                parameters=parameters(graph),
                macs=macs(graph),
                bytes=stored_bytes(graph),
                accuracy=accuracy,
                seconds=self._seconds,
                metrics=metrics,
            )
        )
        self._seconds = 0.0

    def _evaluate(self, graph: Graph, name: str) -> dict[str, float]:
        if self.settings.evaluate is not None:
            return dict(self.settings.evaluate(graph))
        if self.context.validation is None:
            return {}
        description = f"accuracy after {name}"
        progress = self.context.progress
        return {"accuracy": graph_accuracy(graph, self.context.validation, progress, description)}

    def _report(self, graph: Graph, layers_before: list[dict[str, object]]) -> Report:
        report = Report(
            target=self.context.target.name if self.context.target else None,
            seed=self.context.seed,
            stages=self.stages,
            history=graph.history,
            layers_before=layers_before,
            layers_after=[layer.to_json() for layer in layers(graph)],
        )
        if graph.level == Level.INTEGER:
            coverage = int8_coverage(graph).to_json()
            report.int8_mac_coverage = coverage["int8_mac_coverage"]
            report.fallbacks = coverage["fallbacks"]
        return report


def _check_contract(
    item: Pass, result: PassResult, level: Level, annotations: frozenset[str]
) -> None:
    """Hold a pass to the level and the annotations that it declares."""
    wanted = level if item.ensures is None else item.ensures
    if result.graph.level != wanted:
        raise PipelineError(
            f"{item.name} promises a {wanted.label} graph and left a {result.graph.level.label} one"
        )
    found = frozenset(result.graph.annotations)
    expected = (annotations | item.adds) - item.removes
    if found != expected:
        raise PipelineError(
            f"{item.name} promises the annotations {sorted(expected)} and left {sorted(found)}"
        )


def _plain(value: Any) -> Any:
    """Return an option as the history keeps it: JSON values, a graph by its fingerprint."""
    if isinstance(value, Graph):
        return f"graph:{value.fingerprint()[:12]}"
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


class _Blame:
    """Adds to an error which pass failed and which ones ran before."""

    def __init__(self, passes: Sequence[Pass], position: int) -> None:
        ran = ", ".join(item.name for item in passes[: position - 1]) or "none"
        name = passes[position - 1].name
        self.text = f"pass {position} of {len(passes)}, {name}, after: {ran}"

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, VerifyError):
            error.what += f"\n  {self.text}"
        elif isinstance(error, PlanishError):
            error.where = f"{error.where} ({self.text})" if error.where else self.text
        elif isinstance(error, Exception):
            error.add_note(f"in {self.text}")

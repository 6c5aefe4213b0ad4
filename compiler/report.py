"""The report of a compression: what each stage gained and lost, as data, JSON and one HTML page."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from planish.ir.errors import DataError, OptionError
from planish.ir.files import write_beside
from planish.ir.history import HistoryEntry, Refused

from .versions import processor, versions

FORMAT = 1


@dataclass(frozen=True)
class Stage:
    """The model at one point of the way.

    Attributes:
        name: "input", then the name of the pass that led here, or a name given by the caller.
        level: The graph's level, or "compiled".
        accuracy: Share of right answers, 0..1; None where it wasn't measured.
        parameters: Entries of weights and biases.
        macs: Multiply-accumulates for one sample.
        bytes: Size of the stored tensors, or of the artifact's file.
        latency_ms: Median time of one sample on one thread; None where it wasn't measured.
        latency_min_ms: The fastest run.
        runtime: What `latency_ms` was measured with.
        seconds: Time that the passes since the stage before took.
        metrics: What a caller's `evaluate` returned beside the accuracy.
    """

    name: str
    level: str
    parameters: int
    macs: int
    bytes: int
    accuracy: float | None = None
    latency_ms: float | None = None
    latency_min_ms: float | None = None
    runtime: str | None = None
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """Another runtime measured in the same run.

    Attributes:
        name: "ONNX Runtime int8".
        model: What it ran: "pruned, static QDQ".
        latency_ms: Median, or None with a `reason`.
        latency_min_ms: The fastest run.
        runs: How many runs were timed.
        accuracy: Share of right answers, 0..1.
        bytes: Size of its model file.
        reason: Why it wasn't measured.
    """

    name: str
    model: str
    latency_ms: float | None = None
    latency_min_ms: float | None = None
    runs: int = 0
    accuracy: float | None = None
    bytes: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Verdict:
    """One promise held against its measurement."""

    name: str
    wanted: str
    found: str
    passed: bool


@dataclass
class Report:
    """Everything that is known of one compression.

    Attributes:
        title: What was compressed.
        target: The hardware's registered name, or None.
        seed: Of everything random.
        stages: The model at each point of the way, in order.
        history: Passes with options, seeds, refusals, notes and times.
        layers_before: Layers of the graph as it came, as `measure.Layer.to_json` gives them.
        layers_after: Layers of the graph as it left.
        int8_mac_coverage: Share of MACs in int8, 0..1; None for a graph that isn't integer.
        fallbacks: Operators that stayed in float, as `Coverage.to_json` gives them.
        reference_mismatches: Samples on which the compiled artifact and the reference executor
            differ in any bit; None where it wasn't compared.
        peers: Other runtimes measured in the same run.
        verdicts: Promises held against measurements.
        notes: Facts for the reader, by name: the data set, the number of images.
        versions: Of the software.
        processor: Name of the processor that everything ran on.
    """

    title: str = "compression"
    target: str | None = None
    seed: int = 0
    stages: list[Stage] = field(default_factory=list)
    history: list[HistoryEntry] = field(default_factory=list)
    layers_before: list[dict[str, Any]] = field(default_factory=list)
    layers_after: list[dict[str, Any]] = field(default_factory=list)
    int8_mac_coverage: float | None = None
    fallbacks: list[dict[str, Any]] = field(default_factory=list)
    reference_mismatches: int | None = None
    peers: list[Peer] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    processor: str = field(default_factory=processor)

    @property
    def refusals(self) -> list[tuple[str, Refused]]:
        """What passes left alone: (pass name, node and reason)."""
        return [(entry.name, item) for entry in self.history for item in entry.refused]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {"format": FORMAT, **asdict(self)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Report:
        """Rebuild a report from `to_json`.

        Raises:
            DataError: The data is no report, or one of another version.
        """
        known = {item.name for item in dataclasses.fields(Report)}
        try:
            if data["format"] != FORMAT:
                raise DataError(f"report format {data['format']} is not {FORMAT}")
            values = {name: value for name, value in data.items() if name in known}
            values["stages"] = [Stage(**item) for item in data["stages"]]
            values["peers"] = [Peer(**item) for item in data["peers"]]
            values["verdicts"] = [Verdict(**item) for item in data["verdicts"]]
            values["history"] = [HistoryEntry.from_json(item) for item in data["history"]]
            return Report(**values)
        except (KeyError, TypeError) as error:
            raise DataError(f"not a planish report: {error}") from error

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Report:
        """Read a report that `save` wrote as JSON.

        Raises:
            DataError: The file can't be read or is no report.
        """
        try:
            return Report.from_json(json.loads(Path(path).read_text()))
        except OSError as error:
            raise DataError(
                f"can't read the report: {error.strerror or error}", where=str(path)
            ) from error
        except ValueError as error:
            raise DataError(f"not a planish report: {error}", where=str(path)) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report: `.json` as data, `.html` as one page without outside resources.

        Raises:
            OptionError: Another ending.
            PlanishError: The file can't be written; nothing is left behind.
        """
        suffix = Path(path).suffix.lower()
        if suffix == ".json":
            text = json.dumps(self.to_json(), indent=1) + "\n"
        elif suffix in (".html", ".htm"):
            from .report_html import page

            text = page(self)
        else:
            raise OptionError(
                f"can't write a report as {suffix or 'a file without ending'!r}",
                where=str(path),
                cure="end the name in .json or .html",
            )
        write_beside(path, text.encode())

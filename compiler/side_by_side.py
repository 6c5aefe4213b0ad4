"""The same model in several runtimes, measured in turns.

A quantized model goes to the others as one QDQ ONNX file: what the user gave, or what planish
exports of the graph. So all compute the same layers with the same scales, and how far their
answers lie apart is part of the result.
"""

from __future__ import annotations

import importlib
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from planish.ir.calling import flatten_structure
from planish.ir.errors import ModelError, OptionError, PlanishError, unknown

from .latency import Timing, interleaved

if TYPE_CHECKING:
    from planish.backends.artifact import Artifact, TensorInfo
    from planish.backends.choice import Choices
    from planish.ir.graph import Graph

OWN = "planish"
# Runtimes to measure against: name on the command line to the module with its `Prepared`.
RUNTIMES = {"onnxruntime": "onnx_runtime", "openvino": "openvino_runtime"}
# Of these, the ones that can be told to leave newer instructions alone.
LIMITABLE = ("openvino",)


class Prepared(Protocol):
    """A model in another runtime, its inputs in place."""

    name: str
    version: str
    settings: dict[str, Any]

    def __call__(self) -> object:
        """Run the network."""
        ...

    def outputs(self) -> list[NDArray[Any]]:
        """Return what the last call made."""
        ...


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Attributes:
        name: As it is printed.
        graph: Of any level; None where there is only an artifact.
        artifact: What was compiled already.
        onnx: The model as ONNX, for other runtimes; exported from the graph where it's missing.
    """

    name: str
    graph: Graph | None = None
    artifact: Artifact | None = None
    onnx: Path | None = None


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        against: Names in RUNTIMES.
        target: planish's target.
        threads: Threads of a call, of every runtime.
        batch: Samples of a call.
        runs: Timed calls of each.
        isa: "avx2" lets the other runtimes use no newer instructions.
        database: Measured choices of planish's kernels, or their folder.
        cross_compiler: As in `planish.compile`, for devices.
        sysroot: Likewise.
    """

    against: tuple[str, ...] = ()
    target: str = "native"
    threads: int = 1
    batch: int = 1
    runs: int = 30
    isa: str | None = None
    database: str | os.PathLike[str] | Choices | None = None
    cross_compiler: str | None = None
    sysroot: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Raise OptionError for a runtime that isn't known."""
        for name in self.against:
            if name not in RUNTIMES:
                raise unknown("runtime", name, RUNTIMES)
        if self.isa not in (None, "avx2"):
            raise unknown("instruction set", self.isa, ["avx2"])


@dataclass
class Result:
    """One model in one runtime.

    Attributes:
        model: The subject's name.
        runtime: "planish", "ONNX Runtime", "OpenVINO".
        threads: Of a call.
        timing: Milliseconds of a call, or None with a reason.
        apart: How far the furthest output lies from planish's, in steps of its quantization; where
            it has none, in 255ths of its range.
        facts: What else is known: version, settings, sizes.
        reason: Why it wasn't measured.
    """

    model: str
    runtime: str
    threads: int
    timing: Timing | None = None
    apart: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        found = {"model": self.model, "runtime": self.runtime, "threads": self.threads}
        if self.timing is None:
            return {**found, "reason": self.reason}
        times = asdict(self.timing)
        times = {"median_ms": times["median"], "min_ms": times["minimum"], "runs": times["runs"]}
        apart = {} if self.apart is None else {"steps_apart": self.apart}
        return {**found, **times, **apart, **self.facts}


def silent(text: str) -> None:
    """Tell nobody."""


def measure(
    subjects: Sequence[Subject],
    settings: Settings,
    folder: Path,
    progress: Callable[[str], object] = silent,
) -> list[Result]:
    """Measure models in planish and in other runtimes, all in turns.

    What can't be measured comes with its reason; planish's own errors are raised.

    Args:
        subjects: What to measure; the first is what the others are held against.
        settings: How.
        folder: Where ONNX files go that are exported.
        progress: Is told what is being done.

    Raises:
        OptionError: An artifact for another number of threads; OpenVINO can't be limited.
        PlanishError: A model that planish can't compile.
    """
    if settings.isa is not None:
        from .openvino_runtime import limit_instructions

        limit_instructions(settings.isa.upper())
    results: list[Result] = []
    calls: dict[str, Callable[[], object]] = {}
    for subject in subjects:
        progress(f"{subject.name}: compiling for {settings.threads} thread(s)")
        for result, call in _contenders(subject, settings, folder):
            if call is not None:
                calls[str(len(results))] = call
            results.append(result)
    progress(f"measuring on {settings.threads} thread(s)")
    for number, timing in interleaved(calls, settings.runs).items():
        results[int(number)].timing = timing
    return results


def _contenders(
    subject: Subject, settings: Settings, folder: Path
) -> list[tuple[Result, Callable[[], object] | None]]:
    artifact, facts = _compiled(subject, settings)
    inputs = example_inputs(artifact.inputs)
    expected: list[NDArray[Any]] = []
    flatten_structure(artifact(*inputs), expected)
    own = Result(subject.name, OWN, settings.threads, facts=facts)
    found: list[tuple[Result, Callable[[], object] | None]] = [(own, lambda: artifact(*inputs))]
    for key in settings.against:
        module = importlib.import_module(f".{RUNTIMES[key]}", __package__)
        other = Result(subject.name, module.NAME, settings.threads)
        try:
            if settings.isa is not None and key not in LIMITABLE:
                raise OptionError(f"it can't be limited to {settings.isa}")
            path = subject.onnx or _exported(subject, folder)
            prepared: Prepared = module.Prepared(path, inputs, settings.threads)
        except PlanishError as error:
            other.reason = str(error)
            found.append((other, None))
            continue
        other.apart = steps_apart(expected, prepared.outputs(), artifact.outputs)
        size = path.stat().st_size
        about = {"version": prepared.version, "settings": prepared.settings}
        other.facts = {**about, "bytes": size}
        found.append((other, prepared))
    return found


def _compiled(subject: Subject, settings: Settings) -> tuple[Artifact, dict[str, Any]]:
    """Return a subject's artifact and what is known of it."""
    if subject.artifact is not None:
        artifact = subject.artifact
        if artifact.manifest["threads"] != settings.threads:
            raise OptionError(
                f"the artifact was compiled for {artifact.manifest['threads']} thread(s), "
                f"not {settings.threads}",
                where=subject.name,
                cure="give the graph or the ONNX file that it was compiled from",
            )
        return artifact, _facts(artifact)
    from .compilation import compile

    assert subject.graph is not None, "a subject has a graph or an artifact"
    start = time.perf_counter()
    artifact = compile(
        subject.graph,
        settings.target,
        batch=settings.batch,
        threads=settings.threads,
        database=settings.database,
    )
    seconds = time.perf_counter() - start
    return artifact, {**_facts(artifact), "compile_s": seconds}


def _facts(artifact: Artifact) -> dict[str, Any]:
    from planish.backends.artifact import Artifact

    start = time.perf_counter()
    Artifact(artifact.content, target=artifact.target)
    return {
        "target": artifact.target,
        "bytes": artifact.nbytes,
        "load_s": time.perf_counter() - start,
        "memory": asdict(artifact.memory),
        "int8_mac_coverage": artifact.coverage["int8_mac_coverage"],
    }


def _exported(subject: Subject, folder: Path) -> Path:
    if subject.graph is None:
        raise ModelError(
            "an artifact is machine code that no other runtime reads",
            cure="give the graph or the ONNX file that it was compiled from",
        )
    from .onnx_export import export_onnx

    path = folder / f"{zlib.crc32(subject.name.encode()):08x}.onnx"
    return path if path.exists() else export_onnx(subject.graph, path)


def example_inputs(infos: Sequence[TensorInfo]) -> list[NDArray[Any]]:
    """Return inputs that fit an artifact: noise over what their quantization covers.

    Args:
        infos: The artifact's inputs.
    """
    random = np.random.default_rng(0)
    found: list[NDArray[Any]] = []
    for info in infos:
        noise = random.standard_normal(info.shape)
        if info.scale is not None and np.issubdtype(info.dtype, np.floating):
            centre = 0 if info.quantized_dtype == "int8" else 127.5
            noise = (noise * 40 + centre - (info.zero_point or 0)) * info.scale
        elif not np.issubdtype(info.dtype, np.floating):
            noise = np.abs(noise)  # numbers of rows, or truth values
        found.append(noise.astype(info.dtype))
    return found


def steps_apart(
    expected: Sequence[NDArray[Any]],
    found: Sequence[NDArray[Any]],
    infos: Sequence[TensorInfo],
) -> float | None:
    """Return how far the furthest output lies from what was expected, in quantization steps.

    None where the outputs can't be compared: another number of them, or other shapes.

    Args:
        expected: planish's outputs.
        found: The other runtime's.
        infos: The artifact's outputs.
    """
    if [value.shape for value in expected] != [value.shape for value in found]:
        return None
    apart = 0.0
    for left, right, info in zip(expected, found, infos, strict=True):
        wide = left.astype(np.float64)
        step = info.scale or float(np.ptp(wide) / 255 if wide.size else 0) or 1.0
        difference = np.abs(wide - right.astype(np.float64))
        apart = max(apart, float(difference.max(initial=0.0)) / step)
    return apart


def ratios(results: Sequence[Result]) -> list[float | None]:
    """Return each result's fastest call over that of the first one with as many threads."""
    first: Mapping[int, float] = {}
    for result in results:
        if result.timing is not None:
            first = {result.threads: result.timing.minimum, **first}
    return [r.timing and r.timing.minimum / first[r.threads] for r in results]

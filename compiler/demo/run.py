"""The demo's way from the teacher to the report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planish import passes
from planish.examples.fashion_mnist.model import ResNet20, teacher
from planish.ir.files import make_folder, write_beside
from planish.ir.graph import Graph
from planish.ir.level import Level
from planish.passes.context import Progress

from ..capturing import capture
from ..compilation import compile
from ..datasets import Dataset
from ..evaluate import accuracy, artifact_outputs, graph_outputs
from ..latency import interleaved
from ..peers import Runtime, onnx_runtimes
from ..pipeline import Pipeline, PipelineResult
from ..report import Report, Stage
from .data import TestBatches, TrainingBatches, load
from .verdicts import Findings, verdicts

if TYPE_CHECKING:
    from planish.backends.artifact import Artifact

EPOCHS = 6
# Layers whose outputs the residual stream carries: pruning inside the blocks costs less accuracy.
_STREAM = ("stem", "layers.*.conv2", "layers.*.shortcut.0")
_DIGIT_EPOCHS = 20  # the digits are few, and training on them takes seconds
_BATCH = 256
_RUNS = 1000


@dataclass(frozen=True)
class Settings:
    """What can be chosen.

    Attributes:
        output: Folder for the report and for what was made.
        seed: Of everything random.
        epochs: Of distillation; None for the demo's own number.
        target: Hardware to compile for.
        images: Use only so many images of each split; None for all.
        runs: Timed calls of each runtime.
    """

    output: Path
    seed: int = 0
    epochs: int | None = None
    target: str = "native"
    images: int | None = None
    runs: int = _RUNS


@dataclass
class Watch:
    """Measures each stage on the test images, and keeps what later comparisons need.

    Attributes:
        test: The test images.
        progress: Where to report.
        outputs: The latest outputs of each level.
        graphs: The latest graph of each level.
    """

    test: TestBatches
    progress: Progress
    outputs: dict[Level, NDArray[Any]] = field(default_factory=dict)
    graphs: dict[Level, Graph] = field(default_factory=dict)

    def __call__(self, graph: Graph) -> dict[str, float]:
        """Return the accuracy of a graph."""
        description = f"{len(self.test.labels):,} test images, {graph.level.label}"
        outputs, labels = graph_outputs(graph, self.test, self.progress, description)
        assert labels is not None
        self.outputs[graph.level] = outputs
        self.graphs[graph.level] = graph.copy()
        return {"accuracy": accuracy(outputs, labels)}


def run_demo(settings: Settings, progress: Progress) -> Report:
    """Compress, compile, measure, and write the report into `settings.output`.

    Raises:
        PlanishError: The data, the weights or a compiler are missing, or the folder can't be
            written.
    """
    make_folder(settings.output)
    data = load(settings.images)
    progress.status(f"{data.name} from {data.source}")
    test = TestBatches(data.test)
    training = TrainingBatches(
        data.train, batch=_BATCH, seed=settings.seed, augmented=data.name == "fashion-mnist"
    )
    original = _teacher(data, training, settings, progress)
    watch = Watch(test, progress)
    pipeline = recipe(settings, data)
    result = pipeline.run(
        original,
        training,
        target=settings.target,
        seed=settings.seed,
        progress=progress,
        evaluate=watch,
    )
    progress.status(f"compiling for {settings.target}")
    artifact = compile(result.graph, settings.target, strict=True)
    progress.status("the compiled network on all test images, one by one")
    outputs = artifact_outputs(artifact, test.images, progress, "compiled, one by one")
    report = _measured(settings, data, original, result, artifact, watch, outputs, training)
    _write(settings.output, report, pipeline, result.graph, artifact)
    return report


def recipe(settings: Settings, data: Dataset) -> Pipeline:
    """Return the demo's passes."""
    epochs = settings.epochs or (EPOCHS if data.name == "fashion-mnist" else _DIGIT_EPOCHS)
    return Pipeline(
        [
            # The narrowest layers have 16 channels, which wider multiples would leave whole.
            passes.PruneChannels(macs=0.5, multiple=8, protect=_STREAM),
            passes.InsertTeacherHooks(),
            passes.Train(epochs=epochs, learning_rate=0.03, weight_decay=5e-4),
            passes.RemoveTeacherHooks(),
            passes.FoldBatchNorm(),
            passes.InsertQDQ(observer="mse"),
            passes.LowerToInteger(),
        ]
    )


def _teacher(
    data: Dataset, training: TrainingBatches, settings: Settings, progress: Progress
) -> Graph:
    """Return the trained network's graph; for the digits one that is trained right here."""
    example = np.zeros((2, 1, 28, 28), np.float32)
    if data.name == "fashion-mnist":
        return capture(teacher(), example)
    progress.status("no Fashion-MNIST here: training a teacher on scikit-learn's digits")
    graph = capture(ResNet20(len(data.classes)), example)
    step = passes.Train(epochs=_DIGIT_EPOCHS, learning_rate=0.1, weight_decay=5e-4)
    trained = Pipeline([step]).run(graph, training, seed=settings.seed, progress=progress).graph
    trained.history = []
    return trained


def _measured(
    settings: Settings,
    data: Dataset,
    original: Graph,
    result: PipelineResult,
    artifact: Artifact,
    watch: Watch,
    outputs: NDArray[Any],
    training: TrainingBatches,
) -> Report:
    """Complete the pipeline's report with what the compiled network does."""
    test, report = watch.test, result.report
    runtimes = _runtimes(settings, original, watch, training)
    image = test.images[:1]
    own = Runtime("planish", "compiled", artifact, artifact.nbytes)
    present = [own, *(runtime for runtime in runtimes if runtime.session is not None)]
    timings = interleaved({f"{r.name} {r.model}": _Call(r, image) for r in present}, settings.runs)
    report.title = f"ResNet-20 on {_DATA_NAMES.get(data.name, data.name)}"
    report.target = artifact.manifest["target"]["name"]
    report.notes = {"data": data.source, "test images": len(test.labels)}
    for runtime in runtimes:
        right = None
        if runtime.session is not None:
            right = accuracy(runtime.session.outputs(test.images), test.labels)
        report.peers.append(runtime.peer(timings.get(f"{runtime.name} {runtime.model}"), right))
    own_time = timings["planish compiled"]
    last = report.stages[-1]
    report.stages.append(
        Stage(
            name="compiled",
            level="compiled",
            parameters=last.parameters,
            macs=last.macs,
            bytes=artifact.nbytes,
            accuracy=accuracy(outputs, test.labels),
            latency_ms=own_time.median,
            latency_min_ms=own_time.minimum,
            runtime="planish",
        )
    )
    _borrow_latencies(report)
    reference = watch.outputs[Level.INTEGER]
    report.reference_mismatches = int(_differ(outputs, reference).sum())
    simulated = watch.outputs[Level.QUANTIZED].argmax(1)
    report.verdicts = verdicts(
        report,
        Findings(
            images=len(test.labels),
            answers_changed=int((simulated != outputs.argmax(1)).sum()),
            onnx_bytes=next((r.nbytes for r in runtimes if r.model == "teacher"), None),
        ),
    )
    return report


_DATA_NAMES = {"fashion-mnist": "Fashion-MNIST", "digits": "scikit-learn's digits"}


@dataclass(frozen=True)
class _Call:
    runtime: Runtime
    image: NDArray[Any]

    def __call__(self) -> object:
        return self.runtime.run(self.image)


def _runtimes(
    settings: Settings, original: Graph, watch: Watch, training: TrainingBatches
) -> list[Runtime]:
    """Return ONNX Runtime on the teacher and on the pruned network, quantized as ours was."""
    qdq = passes.InsertQDQ()
    calibration = [batch for _, batch in zip(range(qdq.batches), training, strict=False)]
    folder = settings.output
    return [
        *onnx_runtimes(original, "teacher", folder),
        *onnx_runtimes(watch.graphs[Level.CANONICAL], "pruned", folder, calibration),
    ]


def _borrow_latencies(report: Report) -> None:
    """Show the float stages' latency where ONNX Runtime ran the same network."""
    same = {"input": "teacher", "fold-batch-norm": "pruned"}
    peers = {peer.model: peer for peer in report.peers if peer.latency_ms is not None}
    for index, stage in enumerate(report.stages):
        peer = peers.get(same.get(stage.name, ""))
        if peer is not None:
            report.stages[index] = dataclasses.replace(
                stage,
                latency_ms=peer.latency_ms,
                latency_min_ms=peer.latency_min_ms,
                runtime=peer.name,
            )
    report.stages[0] = dataclasses.replace(report.stages[0], name="teacher")


def _differ(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each sample whether any bit differs."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return np.ones(len(found), np.bool_)
    bits = found.view(np.uint8) != np.ascontiguousarray(expected).view(np.uint8)
    return bits.reshape(len(found), -1).any(1)


def _write(
    folder: Path, report: Report, pipeline: Pipeline, graph: Graph, artifact: Artifact
) -> None:
    write_beside(folder / "recipe.toml", pipeline.to_toml().encode())
    graph.save(folder / "integer.planish-graph")
    artifact.save(folder / "model.planish")
    report.save(folder / "report.json")
    report.save(folder / "report.html")

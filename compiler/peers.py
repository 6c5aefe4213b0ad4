"""Other runtimes to hold a compiled model against, on the same inputs in the same process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from planish.ir.errors import ModelError

from .latency import Timing
from .onnx_runtime import NAME, Session, open_session, quantize_onnx
from .report import Peer

if TYPE_CHECKING:
    from planish.ir.graph import Graph


@dataclass(frozen=True)
class Runtime:
    """A model in some runtime, or the reason why it isn't there.

    Attributes:
        name: The runtime: "ONNX Runtime int8".
        model: What it runs: "pruned, static QDQ".
        run: Takes a batch, returns the first output.
        nbytes: Size of the model's file.
        session: For ONNX Runtime.
        reason: Why it can't be measured.
    """

    name: str
    model: str
    run: Callable[[NDArray[Any]], Any] = lambda _: None
    nbytes: int | None = None
    session: Session | None = None
    reason: str | None = None

    def peer(self, timing: Timing | None = None, accuracy: float | None = None) -> Peer:
        """Return the line of the report."""
        if self.reason is not None or timing is None:
            return Peer(self.name, self.model, reason=self.reason or "not timed")
        return Peer(
            self.name,
            self.model,
            latency_ms=timing.median,
            latency_min_ms=timing.minimum,
            runs=timing.runs,
            accuracy=accuracy,
            bytes=self.nbytes,
        )


def onnx_runtimes(
    graph: Graph, model: str, folder: Path, calibration: Iterable[Any] | None = None
) -> list[Runtime]:
    """Return a float graph in ONNX Runtime: fp32 and, with calibration data, int8.

    What can't be had (ONNX Runtime is missing, the model doesn't export) comes with its reason.

    Args:
        graph: At the captured or canonical level.
        model: What to call it in reports.
        folder: Where the ONNX files go.
        calibration: Batches as for a pipeline; ONNX Runtime quantizes on their inputs.
    """
    from .onnx_export import export_onnx

    stem = "".join(c if c.isalnum() else "-" for c in Path(model).name) or "model"
    quantized = f"{model}, static QDQ"
    try:
        path = export_onnx(graph, folder / f"{stem}.onnx")
    except ModelError as error:
        missing = [Runtime(f"{NAME} fp32", model, reason=str(error))]
        if calibration is not None:
            missing.append(Runtime(f"{NAME} int8", quantized, reason=str(error)))
        return missing
    found = [_runtime("fp32", model, lambda: open_session(path))]
    if calibration is not None:
        stream = _inputs(graph, calibration)
        small = folder / f"{stem}-int8.onnx"
        found.append(
            _runtime("int8", quantized, lambda: open_session(quantize_onnx(path, small, stream)))
        )
    return found


def _runtime(kind: str, model: str, make: Callable[[], Session]) -> Runtime:
    try:
        session = make()
    except ModelError as error:
        return Runtime(f"{NAME} {kind}", model, reason=str(error))
    return Runtime(f"{NAME} {kind}", model, session, session.nbytes, session)


def _inputs(graph: Graph, data: Iterable[Any]) -> Iterator[NDArray[Any]]:
    from planish.passes.data import batches

    for batch in batches(data, graph, f"{NAME}'s calibration"):
        yield batch.inputs[0].numpy()

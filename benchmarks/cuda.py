"""ResNet-50 on a GPU, beside ONNX Runtime and torch: `python -m benchmarks.cuda`.

planish's int8 artifact, ONNX Runtime's CUDA provider on the same quantized file, and torch in half
precision, at batch 1 and 32, measured in turns. What is timed is the network on data that is on the
GPU already, until its last kernel has ended. Before that the artifact's results must equal the
reference's. Prints a table; a runtime that isn't there is named with the reason. Without a GPU it
is an error: nothing is estimated.

    python -m benchmarks.cuda_artifacts cuda-sm90     # compiles, on any machine, into build/bench
    python -m benchmarks.cuda                         # measures, on a machine with a GPU

Measuring takes planish, NumPy, safetensors, typer and rich, and what of the others is there.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from planish.backends import Artifact, load
from planish.backends.cuda.driver import Facts, device_facts
from planish.ir.errors import DataError, ModelError
from planish.latency import Timing, interleaved

from .command import run_command

BUILD = Path("build/bench/cuda")
DESCRIPTION = "resnet-50.json"
# Multiply-accumulates of int8 that a multiprocessor makes in a clock, from NVIDIA's data sheets.
MACS_A_CLOCK = {(6, 1): 512, (7, 5): 1024, (8, 0): 2048, (8, 6): 1024, (8, 9): 1024, (9, 0): 4096}


@dataclass(frozen=True)
class Contest:
    """The runtimes at one batch size.

    Attributes:
        batch: Images of a call.
        work: Of each layer, (multiply-accumulates, bytes that it reads and writes).
        timings: By runtime.
        missing: Runtimes that were not measured, with the reason.
    """

    batch: int
    work: list[tuple[int, int]]
    timings: dict[str, Timing]
    missing: dict[str, str]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a call."""
        return sum(macs for macs, _ in self.work)

    def limit(self, facts: Facts) -> float | None:
        """Return the milliseconds below which no GPU of this kind can be, or None if unknown.

        Each layer takes at least what its products take at the peak, and what its bytes take from
        memory: less only where caches hold them from layer to layer.
        """
        peak = int8_peak(facts)
        if not peak:
            return None
        return 1e3 * sum(max(macs / peak, size / facts.bandwidth) for macs, size in self.work)


def int8_peak(facts: Facts) -> float:
    """Return a GPU's multiply-accumulates of int8 a second; 0 if unknown."""
    return MACS_A_CLOCK.get(facts.capability, 0) * facts.multiprocessors * facts.clock


def images_of(batch: int) -> np.ndarray[Any, Any]:
    """Return the images that are measured, float32 [batch, 3, 224, 224]."""
    return np.random.default_rng(7).random((batch, 3, 224, 224), dtype=np.float32)


@dataclass(frozen=True)
class Prepared:
    """What `benchmarks.cuda_artifacts` made.

    Attributes:
        folder: Where it is.
        target: What the artifacts are for.
        onnx: The quantized network's file in the folder.
        work: By batch size what a `Contest` says of its layers.
    """

    folder: Path
    target: str
    onnx: str
    work: dict[int, list[tuple[int, int]]]

    def right(self, batch: int) -> np.ndarray[Any, Any]:
        """Return the reference's results.

        Raises:
            DataError: They are missing or damaged.
        """
        path = self.folder / f"resnet-50-{batch}.npy"
        try:
            return np.load(path)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(path) from error


def read_prepared(folder: Path) -> Prepared:
    """Read what is prepared in a folder.

    Raises:
        DataError: Nothing is, or it is damaged.
    """
    path = folder / DESCRIPTION
    try:
        said = json.loads(path.read_text())
        work = {
            int(batch): [(int(layer["macs"]), int(layer["nbytes"])) for layer in layers]
            for batch, layers in said["batches"].items()
        }
        prepared = Prepared(folder, str(said["target"]), str(said["onnx"]), work)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path) from error
    if not work:
        raise _damaged(path)
    return prepared


def _damaged(path: Path) -> DataError:
    what = "is damaged" if path.exists() else "is missing"
    return DataError(
        f"what is to be measured {what}",
        where=str(path),
        cure="make it: python -m benchmarks.cuda_artifacts cuda-sm90",
    )


def contest(prepared: Prepared, batch: int, runs: int) -> Contest:
    """Measure one batch size in every runtime that is there.

    Raises:
        ModelError: The artifact's results are not the reference's.
        DataError: A file is missing or damaged.
    """
    artifact = load(prepared.folder / f"resnet-50-{batch}.planish", prepared.target)
    images, right = images_of(batch), prepared.right(batch)
    found = artifact(images)
    wrong = int((found != right).sum()) if found.shape == right.shape else right.size
    if wrong:
        raise ModelError(f"{wrong} of {right.size} values of batch {batch} differ", where="planish")
    calls: dict[str, Callable[[], object]] = {"planish int8": _own_call(artifact, images)}
    missing: dict[str, str] = {}
    for name, make in (
        ("ONNX Runtime int8", lambda: _onnx_runtime_call(prepared.folder / prepared.onnx, images)),
        ("torch fp16", lambda: _torch_call(images)),
    ):
        try:
            calls[name] = make()
        except ModelError as error:
            missing[name] = str(error)
    return Contest(batch, prepared.work[batch], interleaved(calls, runs), missing)


def _own_call(artifact: Artifact, images: np.ndarray[Any, Any]) -> Callable[[], object]:
    return artifact.prepared(images)


def _onnx_runtime_call(path: Path, images: np.ndarray[Any, Any]) -> Callable[[], object]:
    """Return a call of ONNX Runtime on data that is on the GPU.

    Raises:
        ModelError: It isn't installed, has no CUDA provider, or the file is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("onnxruntime is not installed") from error
    provider = "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise ModelError("this onnxruntime has no CUDA provider", cure="install onnxruntime-gpu")
    if not path.exists():
        raise ModelError(f"there is no {path}")
    session = onnxruntime.InferenceSession(str(path), providers=[provider])
    if session.get_providers()[0] != provider:
        raise ModelError("onnxruntime's CUDA provider does not load here")
    binding = session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy(images, "cuda", 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, value)
    binding.bind_output(session.get_outputs()[0].name, "cuda")

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return call


def _torch_call(images: np.ndarray[Any, Any]) -> Callable[[], object]:
    """Return a call of torch in half precision, channels last, as a graph of CUDA.

    Raises:
        ModelError: There is no torch that was built with CUDA, or no torchvision.
    """
    if not all(importlib.util.find_spec(name) for name in ("torch", "torchvision")):
        raise ModelError("torch and torchvision are not both installed")
    import torch

    if not torch.cuda.is_available():
        raise ModelError("this torch was built without CUDA, or finds no GPU")
    from .vision import torchvision_models

    form = torch.channels_last
    models: Any = torchvision_models()
    module: Any = models.resnet50().half().cuda().to(memory_format=form).eval()
    given = torch.from_numpy(images).half().cuda().to(memory_format=form)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad():
        for _ in range(3):  # torch chooses its kernels in the first calls
            module(given)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            module(given)

    def call() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return call


def table(contests: list[Contest], facts: Facts) -> Table:
    """Return latency, throughput, and the shares of the GPU's int8 peak and of what is possible."""
    peak = int8_peak(facts)
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"ResNet-50 on {facts.name}")
    for name in ("batch", "runtime", "fastest ms", "median ms", "images/s", "int8 peak", "limit"):
        made.add_column(name, justify="left" if name == "runtime" else "right")
    for each in contests:
        limit = each.limit(facts)
        for name, timing in each.timings.items():
            shares = ("", "")
            if limit and "int8" in name:
                reached = each.macs / timing.median * 1e3 / peak
                shares = (f"{reached:.1%}", f"{limit / timing.median:.1%}")
            rate = each.batch / timing.median * 1e3
            times = (f"{timing.minimum:.3f}", f"{timing.median:.3f}", f"{rate:.0f}")
            made.add_row(str(each.batch), name, *times, *shares)
    return made


def measure(folder: Path, runs: int) -> None:
    """Measure what is prepared in a folder, and print the table.

    Raises:
        DataError: Nothing is, or a file is damaged.
        DriverError: There is no GPU.
    """
    prepared, facts = read_prepared(folder), device_facts()
    contests = [contest(prepared, batch, runs) for batch in prepared.work]
    console = Console()
    console.print(table(contests, facts))
    console.print(
        f"limit: each layer's products at the peak, or its bytes at {facts.bandwidth:.3g}/s"
    )
    for each in contests:
        for name, reason in each.missing.items():
            console.print(f"batch {each.batch}: {name} was not measured: {reason}")


def main(
    folder: Annotated[Path, typer.Option(help="Where the compiled networks are.")] = BUILD,
    runs: Annotated[int, typer.Option(help="Timed calls of each runtime.")] = 200,
) -> None:
    """Measure ResNet-50 on this machine's GPU."""
    measure(folder, runs)


if __name__ == "__main__":
    run_command(main)

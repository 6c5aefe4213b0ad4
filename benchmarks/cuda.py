"""ResNet-50 on a GPU, beside ONNX Runtime and torch: `python -m benchmarks.cuda`.

planish's int8 artifact, ONNX Runtime's CUDA provider on the same quantized file, and torch in half
precision, at batch 1 and 32, measured in turns. What is timed is the network on data that is on the
GPU already, until its last kernel has ended. Prints a table; a runtime that isn't there is named
with the reason. Without a GPU it is an error: nothing is estimated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

import planish
from planish.backends import Artifact, find_target
from planish.backends.cuda.driver import Facts, device_facts
from planish.backends.matching import obstacle
from planish.backends.target import describe_target
from planish.backends.targets import BEST_FIRST
from planish.ir import ModelError, PlanishError, TargetError
from planish.latency import Timing, interleaved
from planish.measure import macs

from .networks import GROUPS, Network, prepare

BUILD = Path("build/bench")
BATCHES = (1, 32)
# Multiply-accumulates of int8 that a multiprocessor makes in a clock, from NVIDIA's data sheets.
MACS_A_CLOCK = {(6, 1): 512, (7, 5): 1024, (8, 0): 2048, (8, 6): 1024, (8, 9): 1024, (9, 0): 4096}


@dataclass(frozen=True)
class Contest:
    """The runtimes at one batch size.

    Attributes:
        batch: Images of a call.
        macs: Multiply-accumulates of a call.
        timings: By runtime.
        missing: Runtimes that were not measured, with the reason.
    """

    batch: int
    macs: int
    timings: dict[str, Timing]
    missing: dict[str, str]


def gpu_target() -> str:
    """Return the best target that this machine's GPU runs.

    Raises:
        TargetError: None, or there is no GPU.
    """
    targets = [find_target(name) for name in BEST_FIRST if name.startswith("cuda-")]
    reasons = {target.name: obstacle(describe_target(target)) for target in targets}
    for name, reason in reasons.items():
        if reason is None:
            return name
    raise TargetError(
        "; ".join(map(str, reasons.values())), cure="run this on a machine with an NVIDIA GPU"
    )


def contest(network: Network, batch: int, target: str, runs: int) -> Contest:
    """Measure one network in every runtime that is there."""
    path = prepare(network, BUILD, find_target(target))
    graph = planish.capture(path)
    artifact = planish.compile(graph, target=target, batch=batch)
    images = network.samples(batch, seed=7)
    calls: dict[str, Callable[[], object]] = {"planish int8": _own_call(artifact, images.numpy())}
    missing: dict[str, str] = {}
    for name, make in (
        ("ONNX Runtime int8", lambda: _onnx_runtime_call(path, images.numpy())),
        ("torch fp16", lambda: _torch_call(network, images)),
    ):
        try:
            calls[name] = make()
        except ModelError as error:
            missing[name] = str(error)
    return Contest(batch, macs(graph) * batch, interleaved(calls, runs), missing)


def _own_call(artifact: Artifact, images: np.ndarray[Any, Any]) -> Callable[[], object]:
    return artifact.prepared(images)


def _onnx_runtime_call(path: Path, images: np.ndarray[Any, Any]) -> Callable[[], object]:
    """Return a call of ONNX Runtime on data that is on the GPU.

    Raises:
        ModelError: It isn't installed, or has no CUDA provider.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("onnxruntime is not installed") from error
    provider = "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise ModelError("this onnxruntime has no CUDA provider", cure="install onnxruntime-gpu")
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


def _torch_call(network: Network, images: torch.Tensor) -> Callable[[], object]:
    """Return a call of torch in half precision, channels last, as a graph of CUDA.

    Raises:
        ModelError: This torch was built without CUDA, or the network can't be made.
    """
    if not torch.cuda.is_available():
        raise ModelError("this torch was built without CUDA, or finds no GPU")
    form = torch.channels_last
    module: Any = network.make().half().cuda()
    module = module.to(memory_format=form).eval()
    given = images.half().cuda().to(memory_format=form)
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
    """Return the results for a terminal: latency, throughput, and the share of the GPU's peak."""
    peak = MACS_A_CLOCK.get(facts.capability, 0) * facts.multiprocessors * facts.clock
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"ResNet-50 on {facts.name}")
    for name in ("batch", "runtime", "fastest ms", "median ms", "images/s", "int8 peak"):
        made.add_column(name, justify="left" if name == "runtime" else "right")
    for each in contests:
        for name, timing in each.timings.items():
            rate = each.batch / timing.median * 1e3
            share = each.macs / timing.median * 1e3 / peak if peak else 0.0
            own = f"{share:.1%}" if peak and "int8" in name else ""
            times = (f"{timing.minimum:.3f}", f"{timing.median:.3f}", f"{rate:.0f}", own)
            made.add_row(str(each.batch), name, *times)
    return made


def main(runs: Annotated[int, typer.Option(help="Timed calls of each runtime.")] = 200) -> None:
    """Measure ResNet-50 on this machine's GPU."""
    try:
        target = gpu_target()
        (network,) = [n for group in GROUPS for n in group if n.name == "ResNet-50"]
        contests = [contest(network, batch, target, runs) for batch in BATCHES]
    except PlanishError as error:
        typer.echo(f"benchmarks: {error}", err=True)
        sys.exit(2)
    console = Console()
    console.print(table(contests, device_facts()))
    for each in contests:
        for name, reason in each.missing.items():
            console.print(f"batch {each.batch}: {name} was not measured: {reason}")


if __name__ == "__main__":
    typer.run(main)

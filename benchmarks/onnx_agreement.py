"""Planish's integers beside ONNX Runtime and OpenVINO: `python -m benchmarks.onnx_agreement`.

Each network is quantized twice: by planish, and exported as QDQ; by ONNX Runtime (QDQ per channel,
QDQ per tensor, QOperator), and imported. ONNX Runtime runs the files with its graph optimizations
off, which is float arithmetic between exact quantizations; planish runs its integer graph. Writes
docs/onnx-agreement.md: how many output values agree within one step of the output's scale, and
whether what was exported and imported again is the same integer graph.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, fx, nn

import planish
from planish import passes
from planish.ir.files import write_beside
from planish.ir.fingerprint import graph_content
from planish.ir.graph import Graph
from planish.ir.origin import get_origin
from planish.onnx_runtime import quantize_onnx

from .networks import SMALL, Network

_SAMPLES = 64
_CALIBRATION = 2  # batches of 32
_fake_quantize = torch.ops.planish.fake_quantize.default
_dequantize = torch.ops.planish.dequantize.default


@dataclass(frozen=True)
class Row:
    """One file, and how the two runtimes agree on it.

    Attributes:
        network: Its name.
        file: Who quantized it, and how it is written.
        inner: Quantized values of all layers that were compared.
        inner_within: Share of them that differ by one step at most.
        inner_equal: Share of them that are equal.
        values: Output values compared.
        within: Share of them that differ by one step of the output's scale at most.
        equal: Share that differ by less than a thousandth of a step.
        worst: Largest difference in steps.
        vino: Share within one step of OpenVINO, or None where it was not run.
        same: Whether export and import gave the same integer graph; None for others' files.
    """

    network: str
    file: str
    inner: int
    inner_within: float
    inner_equal: float
    values: int
    within: float
    equal: float
    worst: float
    vino: float | None = None
    same: bool | None = None


class Mixed(nn.Module):
    """Depthwise and grouped layers, a residual, a concatenation, pools, tables, upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.depthwise = nn.Conv2d(16, 16, 5, padding=2, groups=16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.down = nn.Conv2d(32, 24, 3, 2, 1)
        self.merge = nn.Conv2d(56, 24, 1)
        self.head = nn.Linear(24, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Take [n, 3, h, w] and return [n, 10]."""
        x = nn.functional.hardswish(self.stem(image))
        y = torch.relu(self.grouped(nn.functional.silu(self.depthwise(x))) + x)
        both = torch.cat([x, y], 1)
        low = torch.sigmoid(self.down(both))
        up = nn.functional.interpolate(low, scale_factor=2.0)
        return self.head(self.merge(torch.cat([up, both], 1)).mean((2, 3)))


def networks() -> list[Network]:
    """Return the benchmark's networks and one with many kinds of operators."""

    def mixed() -> nn.Module:
        torch.manual_seed(0)
        return Mixed().eval()

    return [*SMALL, Network("mixed operators", (3, 32, 32), mixed)]


def compare(network: Network, folder: Path) -> Iterator[Row]:
    """Yield a row a file."""
    graph = planish.capture(network.make(), network.samples(2, seed=0))
    graph = planish.Pipeline([passes.FoldBatchNorm()]).run(graph).graph
    batches = [network.samples(32, seed) for seed in range(1, _CALIBRATION + 1)]
    x = network.samples(_SAMPLES, seed=99)
    for dtype in ("uint8", "int8"):
        step = passes.InsertQDQ(activation_dtype=dtype)
        quantized = planish.Pipeline([step]).run(graph, batches).graph
        path = planish.export_onnx(quantized, folder / "own.onnx")
        row, again = _row(network.name, f"planish, QDQ {dtype}", path, x)
        same = graph_content(_lower(quantized)) == graph_content(again)
        yield replace(row, same=same, vino=_openvino_share(again, path, x))
    written = planish.export_onnx(graph, folder / "float.onnx")
    for label, options in _THEIRS.items():
        arrays = [batch.numpy() for batch in batches]
        path = quantize_onnx(written, folder / "theirs.onnx", arrays, **options)
        yield _row(network.name, label, path, x)[0]


_THEIRS: dict[str, dict[str, Any]] = {
    "ONNX Runtime, QDQ per channel": {},
    "ONNX Runtime, QDQ per tensor, int8": {"per_channel": False, "activations": "QInt8"},
    "ONNX Runtime, QOperator per channel": {"form": "QOperator"},
}


def _lower(graph: Graph) -> Graph:
    return planish.Pipeline([passes.LowerToInteger()]).run(graph).graph


def _row(network: str, label: str, path: Path, x: Tensor) -> tuple[Row, Graph]:
    """Compare one file; return the row and the file's integer graph."""
    graph = planish.capture(path)
    integer = _lower(graph)
    recorder = _Recorder(integer)
    with torch.no_grad():
        own = recorder.run(x)[0].numpy()
    places = _places(graph, recorder.values, path)
    output, *inner = run_onnx_runtime(path, x, list(places))
    steps = np.abs(own - output) / _scale(integer)
    apart = [
        np.abs(recorder.values[name].numpy().astype(int) - value.astype(int)).reshape(-1)
        for name, value in zip(places.values(), inner, strict=True)
    ]
    every = np.concatenate(apart)
    row = Row(
        network=network,
        file=label,
        inner=every.size,
        inner_within=float((every <= 1).mean()),
        inner_equal=float((every == 0).mean()),
        values=steps.size,
        within=float((steps <= 1.001).mean()),
        equal=float((steps < 1e-3).mean()),
        worst=float(steps.max()),
    )
    return row, integer


def _scale(integer: Graph) -> float:
    """Return the scale of the output."""
    last = [node for node in integer.calls if node.target is _dequantize]
    return float(last[-1].args[1])  # type: ignore[arg-type]


def _openvino_share(integer: Graph, path: Path, x: Tensor) -> float:
    with torch.no_grad():
        own = integer(x).numpy()
    return float((np.abs(own - run_openvino(path, x)) / _scale(integer) <= 1.001).mean())


class _Recorder(fx.Interpreter):
    """Runs an integer graph and keeps every 8-bit value by its node's name."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.module)
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        if n.op == "call_function" and value.dtype in (torch.uint8, torch.int8):
            self.values[n.name] = value
        return value


def _places(graph: Graph, values: dict[str, Tensor], path: Path) -> dict[str, str]:
    """Return which node of the integer graph makes which tensor of integers of the file.

    Lowering names an integer operator after the quantizer that ends it, or after what it computes.
    """
    made = {node.name: node.output[0] for node in onnx.load(path).graph.node}
    found: dict[str, str] = {}
    for node in graph.calls:
        tensor = made.get(get_origin(node).name)
        if node.target is not _fake_quantize or tensor is None:
            continue
        source: Any = node
        while source.op == "call_function" and source.name not in values:
            source = source.args[0]
            if not isinstance(source, fx.Node):
                break
        shape = tuple(node.meta["val"].shape[1:])
        value = values.get(source.name) if isinstance(source, fx.Node) else None
        if value is not None and tuple(value.shape[1:]) == shape:
            found[tensor] = source.name
    return found


def run_onnx_runtime(path: Path, x: Tensor, inner: list[str]) -> list[NDArray[Any]]:
    """Return the first output of ONNX Runtime without graph optimizations, and inner tensors."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = onnx.load(path)
    first = model.graph.output[0].name
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner if name != first)
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    made = session.run([first, *inner], {session.get_inputs()[0].name: x.numpy()})
    return [np.asarray(value) for value in made]


def run_openvino(path: Path, x: Tensor) -> NDArray[Any]:
    """Return the first output of OpenVINO, which fuses as it likes."""
    import openvino

    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": 1})
    return np.asarray(model(x.numpy())[0])


def page(rows: list[Row]) -> str:
    """Return docs/onnx-agreement.md."""
    lines = [
        "# Agreement with ONNX Runtime and OpenVINO",
        "",
        "Made by `python -m benchmarks.onnx_agreement`. ONNX Runtime runs each file with its",
        "graph optimizations off, in float between exact quantizations; planish runs the integer",
        "graph of the same file. Compared are all quantized values inside the network, and the",
        "outputs. A step is a value's scale. Float sums round, so that about one value in 100,000",
        "of a layer falls on the other side of a tie; what follows amplifies it, most in the",
        "trained ResNet on random images, layer by layer (PyTorch's float simulation of the same",
        "graph differs from ONNX Runtime as much). OpenVINO fuses and rounds by its own rules.",
        "",
        "Where ONNX Runtime chose the scales, its ResNet's nine additions have ratios of scales",
        "that 15-bit multipliers hold only to 2**-15, which moves one sum in a hundred by a step;",
        "insert-qdq chooses scales whose ratios are exact.",
        "",
        "| network | file | inner values | within one step | equal | outputs | within one step | "
        "equal | worst, steps | OpenVINO within one step | same after export and import |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        vino = "" if row.vino is None else f"{row.vino:.2%}"
        same = {None: "", True: "yes", False: "NO"}[row.same]
        lines.append(
            f"| {row.network} | {row.file} | {row.inner} | {row.inner_within:.3%} | "
            f"{row.inner_equal:.2%} | {row.values} | {row.within:.2%} | {row.equal:.2%} | "
            f"{row.worst:.3g} | {vino} | {same} |"
        )
    return "\n".join(lines) + "\n"


def main(
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/onnx-agreement.md"),
    only: Annotated[str, typer.Option(help="Networks whose name has this; writes nothing.")] = "",
) -> None:
    """Compare planish's integers with other runtimes on the same files."""
    logging.disable(logging.WARNING)
    console, rows = Console(), []
    for network in networks():
        if only.lower() not in network.name.lower():
            continue
        with tempfile.TemporaryDirectory() as folder:
            for row in compare(network, Path(folder)):
                console.print(row)
                rows.append(row)
    if not only:
        write_beside(out, page(rows).encode())
        console.print(f"written: {out}")


if __name__ == "__main__":
    typer.run(main)

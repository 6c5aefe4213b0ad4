"""The onnx package's nine light models: `python -m benchmarks.light_models` (docs/light-models.md).

Each is imported, compared with the output that the package expects, and compiled for x86 in float.
Their weights are constants, so that every class gets the same score; therefore each is also given
random weights, compared with ONNX Runtime, quantized on random images, lowered and compiled: how
much computes in int8, and whether the machine code equals the reference bit for bit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from numpy.typing import NDArray
from onnx import numpy_helper
from rich.console import Console

import planish
from planish import passes
from planish.ir.coverage import Coverage, int8_coverage
from planish.ir.files import write_beside
from planish.ir.graph import Graph

_FOLDER = Path(onnx.__file__).parent / "backend/test/data/light"
_TOLERANCE = 1e-3  # relative, as onnx's own runner compares models


@dataclass(frozen=True)
class Found:
    """What one model gave.

    Attributes:
        name: The file's, without "light_".
        error: Largest relative difference between the imported graph and the expected output.
        float_error: The same of the float artifact.
        random_error: The same with random weights, against ONNX Runtime.
        coverage: Of the integer graph.
        differing: Output values of the int8 artifact that differ from the reference in any bit.
        seconds: All steps together.
    """

    name: str
    error: float
    float_error: float
    random_error: float
    coverage: Coverage
    differing: int
    seconds: float


def dummy_input(graph: Graph) -> NDArray[np.float32]:
    """Return the input of onnx's runner for light models: a ramp from 0 to 1 (float32)."""
    (spec,) = graph.inputs
    sizes = [1 if size is None else size for size in spec.shape]
    count = int(np.prod(sizes))
    return (np.arange(count).reshape(sizes) / count).astype(np.float32)


def check(path: Path, target: str) -> Found:
    """Import, compile, quantize and compare one model."""
    began = time.perf_counter()
    graph = planish.capture(path)
    x = dummy_input(graph)
    expected = _expected(path)
    floating = planish.compile(graph, target, batch=1)
    model = with_random_weights(onnx.load(path))
    drawn = planish.capture(model)
    peer = _onnx_runtime(model, x)
    batches = [np.random.default_rng(seed).random(x.shape, np.float32) for seed in range(2)]
    steps = planish.Pipeline([passes.FoldBatchNorm(), passes.InsertQDQ(), passes.LowerToInteger()])
    integer = steps.run(drawn, batches, target=target).graph
    artifact = planish.compile(integer, target, batch=1)
    reference = _first(integer(x))
    return Found(
        path.stem.removeprefix("light_"),
        _error(_first(graph(x)), expected),
        _error(_first(floating(x)), expected),
        _error(_first(drawn(x)), peer),
        int8_coverage(integer),
        int((_first(artifact(x)) != reference).sum()),
        time.perf_counter() - began,
    )


def with_random_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose weights, ConstantOfShape nodes in the file, are random and stored."""
    rng = np.random.default_rng(0)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    sizes = {t.name: numpy_helper.to_array(t) for t in copy.graph.initializer}
    positive = {
        name
        for node in copy.graph.node
        if node.op_type == "BatchNormalization"
        for name in (node.input[1], node.input[4])  # scale and variance
    }
    for node in list(copy.graph.node):
        if node.op_type != "ConstantOfShape" or node.input[0] not in sizes:
            continue
        (name,), shape = node.output, [int(size) for size in sizes[node.input[0]]]
        values = rng.standard_normal(shape, np.float32)
        fan_in = max(1, int(np.prod(shape[1:])))
        scaled = 1 + 0.2 * np.tanh(values) if name in positive else values * (2 / fan_in) ** 0.5
        stored = scaled if len(shape) > 1 or name in positive else 0.1 * values
        copy.graph.initializer.append(numpy_helper.from_array(stored.astype(np.float32), name))
        copy.graph.node.remove(node)
    return copy


def _onnx_runtime(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ONNX Runtime's answer."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: it warns of every initializer that is left over
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {session.get_inputs()[0].name: x})[0]  # type: ignore[no-any-return]


def _expected(path: Path) -> NDArray[np.float32]:
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes())
    return numpy_helper.to_array(tensor)


def _first(outputs: Any) -> NDArray[np.float32]:
    first = outputs[0] if isinstance(outputs, tuple | list) else outputs
    return np.asarray(first.detach() if hasattr(first, "detach") else first)


def _error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    scale = max(float(np.abs(expected).max()), 1e-12)
    return float(np.abs(found.reshape(expected.shape) - expected).max()) / scale


def table(results: list[Found], target: str) -> str:
    """Return the page."""
    lines = [
        "# The light models of the onnx package",
        "",
        f"Made by `python -m benchmarks.light_models`. Target {target}, batch 1, quantized on two",
        "random images. Errors are relative to the largest value expected; the files'",
        "own weights give every class one score, and random ones saturate some softmaxes: 0.",
        "",
        "| model | import, error | compiled float, error | random weights, error against "
        "ONNX Runtime | MACs in int8 | in float | int8 values unlike the reference | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for found in results:
        kinds = sorted({fallback.operator for fallback in found.coverage.fallbacks})
        errors = [found.error, found.float_error, found.random_error]
        lines.append(
            f"| {found.name} | {' | '.join(f'{error:.1e}' for error in errors)} "
            f"| {found.coverage.share:.2%} | {', '.join(kinds) or 'nothing'} "
            f"| {found.differing} | {found.seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main(
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/light-models.md"),
    target: Annotated[str, typer.Option(help="Hardware to compile for.")] = "x86-64-v3",
    only: Annotated[str, typer.Option(help="Models whose name holds this.")] = "",
) -> None:
    """Check the light models and write the page."""
    console = Console(stderr=True)
    results: list[Found] = []
    for path in sorted(_FOLDER.glob("light_*.onnx")):
        if only not in path.stem:
            continue
        console.print(f"{path.stem} ...")
        results.append(check(path, target))
        console.print(f"  {results[-1].coverage.share:.2%} int8, {results[-1].differing} differ")
    write_beside(out, table(results, target).encode())
    good = all(
        max(f.error, f.float_error, f.random_error) < _TOLERANCE and not f.differing
        for f in results
    )
    raise typer.Exit(0 if good else 1)


if __name__ == "__main__":
    typer.run(main)

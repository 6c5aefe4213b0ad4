"""The onnx package's nine light models: `python -m benchmarks.light_models` (docs/light-models.md).

Each is imported, compared with the output that the package expects, compiled for x86 in float, then
quantized on random images, lowered and compiled: how much computes in int8, and whether the machine
code equals the reference bit for bit.
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
        coverage: Of the integer graph.
        differing: Output values of the int8 artifact that differ from the reference in any bit.
        seconds: All steps together.
    """

    name: str
    error: float
    float_error: float
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
    batches = [np.random.default_rng(seed).random(x.shape, np.float32) for seed in range(2)]
    steps = planish.Pipeline([passes.FoldBatchNorm(), passes.InsertQDQ(), passes.LowerToInteger()])
    integer = steps.run(graph, batches, target=target).graph
    artifact = planish.compile(integer, target, batch=1)
    reference = _first(integer(x))
    return Found(
        path.stem.removeprefix("light_"),
        _error(_first(graph(x)), expected),
        _error(_first(floating(x)), expected),
        int8_coverage(integer),
        int((_first(artifact(x)) != reference).sum()),
        time.perf_counter() - began,
    )


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
        "random images. Errors are relative to the largest value of the expected output.",
        "",
        "| model | import, error | compiled float, error | MACs in int8 | in float "
        "| int8 values unlike the reference | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in results:
        kinds = sorted({fallback.operator for fallback in found.coverage.fallbacks})
        lines.append(
            f"| {found.name} | {found.error:.1e} | {found.float_error:.1e} "
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
        f.error < _TOLERANCE and f.float_error < _TOLERANCE and not f.differing for f in results
    )
    raise typer.Exit(0 if good else 1)


if __name__ == "__main__":
    typer.run(main)

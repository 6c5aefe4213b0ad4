"""Every torchvision family through planish: `make families` (docs/model-families.md).

Each model, random weights, smallest input, is captured, compared with eager torch, quantized on
random images and lowered: how much of it computes in int8, what stays in float and why.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

import planish
from planish import passes
from planish.ir import PlanishError, unknown
from planish.ir.coverage import Coverage, int8_coverage
from planish.ir.files import write_beside
from planish.ir.graph import Graph

from .vision import FAMILIES, Family, build, installed

_TOLERANCE = 1e-5  # relative, captured against eager
_WANTED = 0.95  # of the MACs in int8


@dataclass
class Found:
    """What one family gave.

    Attributes:
        family: Which.
        nodes: Operators of the canonical graph.
        opened: Whether the batch size stayed open.
        error: Largest relative difference between the canonical graph and eager torch.
        coverage: Of the integer graph.
        noise: Signal to quantization noise of the integer graph's output, in dB.
        differing: Values of the compiled model unlike the reference's; None if not compiled.
        failure: Why it stopped, if it did.
        seconds: All steps together.
    """

    family: Family
    nodes: int = 0
    opened: bool = False
    error: float = 0.0
    coverage: Coverage | None = None
    noise: float = 0.0
    differing: int | None = None
    failure: str | None = None
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether the family meets the aim."""
        covered = self.coverage is not None and self.coverage.share >= _WANTED
        return covered and self.error <= _TOLERANCE and not self.differing


def check(family: Family, target: str, *, compiled: bool) -> Found:
    """Take one family all the way."""
    began = time.perf_counter()
    found = Found(family)
    try:
        _check(found, target, compiled=compiled)
    except PlanishError as error:
        found.failure = str(error).splitlines()[0]
    found.seconds = time.perf_counter() - began
    return found


def _check(found: Found, target: str, *, compiled: bool) -> None:
    model, x = build(found.family.name)
    graph = planish.capture(model, x)
    found.nodes, found.opened = len(graph.calls), graph.inputs[0].shape[0] is None
    with torch.no_grad():
        exact = _first(graph(x))
        found.error = _difference(exact, _first(model(x)))
        batches = [torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), x]
        steps = [passes.FoldBatchNorm(), passes.InsertQDQ(), passes.LowerToInteger()]
        integer = planish.Pipeline(steps).run(graph, batches, target=target).graph
        found.coverage = int8_coverage(integer)
        found.noise = _decibels(exact, _first(integer(x)))
        if compiled:
            found.differing = _differing(integer, x[:1], target)


def _differing(integer: Graph, x: torch.Tensor, target: str) -> int:
    artifact = planish.compile(integer, target, batch=1)
    return int((torch.as_tensor(_first(artifact(x.numpy()))) != _first(integer(x))).sum())


def _first(outputs: Any) -> Any:
    """Return the first output; segmentation models name theirs."""
    while isinstance(outputs, dict | tuple | list):
        outputs = next(iter(outputs.values())) if isinstance(outputs, dict) else outputs[0]
    return outputs


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    scale = expected.abs().max().clamp(min=1e-12)
    return float((found - expected).abs().max() / scale)


def _decibels(exact: torch.Tensor, quantized: torch.Tensor) -> float:
    noise = (exact - quantized).pow(2).mean().clamp(min=1e-20)
    return float(10.0 * torch.log10(exact.pow(2).mean() / noise))


def table(results: list[Found], target: str) -> str:
    """Return the page."""
    lines = [
        "# The families of torchvision",
        "",
        "Made by `make families ARGS=--compile`.",
        "",
        "The smallest member of each family, random weights (seed 0), at",
        f"the smallest input that it takes; target {target}, quantized on random images. Error is",
        "relative, of the canonical graph against eager torch. Noise is the integer graph's output",
        "against the float one's; with random weights it says little about accuracy.",
        "",
        "| family | model | pixels | operators | open batch | error | MACs in int8 | SQNR "
        "| compiled, values unlike the reference | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(found) for found in results]
    lines += ["", "## What stays in float", ""]
    reasons = [line for found in results for line in _reasons(found)]
    return "\n".join([*lines, *(reasons or ["Nothing."])]) + "\n"


def _line(found: Found) -> str:
    family = found.family
    head = f"| {family.name} | {family.member} | {family.size} "
    if found.failure is not None or found.coverage is None:
        return f"{head}| {found.nodes} | | | {found.failure} | | | {found.seconds:.0f} |"
    compiled = "" if found.differing is None else str(found.differing)
    return (
        f"{head}| {found.nodes} | {'yes' if found.opened else 'no'} | {found.error:.1e} "
        f"| {found.coverage.share:.2%} | {found.noise:.1f} dB | {compiled} "
        f"| {found.seconds:.0f} |"
    )


def _reasons(found: Found) -> list[str]:
    if found.coverage is None or not found.coverage.fallbacks:
        return []
    counted: dict[tuple[str, str], int] = {}
    for fallback in found.coverage.fallbacks:
        key = (fallback.operator, fallback.reason)
        counted[key] = counted.get(key, 0) + 1
    return [
        f"- {found.family.name}: {count} x {operator}: {reason}"
        for (operator, reason), count in counted.items()
    ]


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Families; all without.")] = None,
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/model-families.md"),
    target: Annotated[str, typer.Option(help="Hardware to quantize for.")] = "x86-64-v3",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile, too, and compare with the reference.")
    ] = False,
) -> None:
    """Check the families and write the page (only for all of them)."""
    console = Console(stderr=True)
    if not installed():
        console.print("torchvision is missing: pip install --no-deps torchvision==0.28.0")
        raise typer.Exit(2)
    known = {family.name: family for family in FAMILIES}
    for name in names or ():
        if name not in known:
            console.print(str(unknown("family", name, known)))
            raise typer.Exit(2)
    results: list[Found] = []
    for family in [known[name] for name in names] if names else FAMILIES:
        results.append(check(family, target, compiled=compiled))
        console.print(_line(results[-1]))
        for reason in _reasons(results[-1]):
            console.print(f"  {reason}", highlight=False)
    if not names:
        write_beside(out, table(results, target).encode())
    raise typer.Exit(0 if all(found.good for found in results) else 1)


if __name__ == "__main__":
    typer.run(main)

"""Measure: `python -m benchmarks` (`make bench`).

Every network is quantized by planish and, with the same calibration batches, by ONNX Runtime; all
run one sample on one thread, in turns. Prints a table and writes build/bench/results.json.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

import planish
from planish import passes
from planish.ir import PlanishError, unknown
from planish.ir.files import write_beside
from planish.latency import Timing, interleaved
from planish.peers import Runtime, onnx_runtimes

from .networks import NETWORKS, Network

_CALIBRATION = 8  # batches
_BATCH = 32  # samples


def runtimes(network: Network, target: str, folder: Path) -> list[Runtime]:
    """Return the network compiled by planish, then as other runtimes have it.

    Args:
        network: What to measure.
        target: planish's target.
        folder: Where files go that are needed while the runtimes are measured.
    """
    graph = planish.capture(network.make(), network.samples(2, seed=0))
    batches = [network.samples(_BATCH, seed) for seed in range(1, _CALIBRATION + 1)]
    steps = planish.Pipeline([passes.FoldBatchNorm(), passes.InsertQDQ()])
    artifact = planish.compile(steps.run(graph, batches, target=target).graph, target)
    own = Runtime("planish int8", network.name, artifact, artifact.nbytes)
    return [own, *onnx_runtimes(graph, network.name, folder, batches)]


def measure(network: Network, target: str, runs: int) -> list[dict[str, Any]]:
    """Return one row a runtime: its name, times in milliseconds, bytes, or why it's missing."""
    with tempfile.TemporaryDirectory() as folder:
        found = runtimes(network, target, Path(folder))
        sample = network.samples(1, seed=0).numpy()
        calls = {r.name: lambda r=r: r.run(sample) for r in found if r.reason is None}
        timings = interleaved(calls, runs)
    return [_row(network, runtime, timings.get(runtime.name)) for runtime in found]


def _row(network: Network, runtime: Runtime, timing: Timing | None) -> dict[str, Any]:
    row: dict[str, Any] = {"network": network.name, "runtime": runtime.name}
    if timing is None:
        return row | {"reason": runtime.reason}
    return row | {
        "median_ms": timing.median,
        "min_ms": timing.minimum,
        "runs": timing.runs,
        "bytes": runtime.nbytes,
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Return the rows as a table; planish's, the first of each network, is what others face."""
    shown = Table(box=box.SIMPLE_HEAD, title="one sample, one thread", title_justify="left")
    shown.add_column("network", no_wrap=True)
    shown.add_column("runtime", no_wrap=True)
    for name in ("median", "minimum", "against planish"):
        shown.add_column(name, justify="right")
    own = 0.0
    for row in rows:
        if "reason" in row:
            shown.add_row(row["network"], row["runtime"], "", "", row["reason"])
            continue
        first = row["runtime"].startswith("planish")
        own = row["min_ms"] if first else own
        times = (f"{row['median_ms']:.3f} ms", f"{row['min_ms']:.3f} ms")
        ratio = "" if first else f"{row['min_ms'] / own:.2f} x"
        shown.add_row(row["network"] if first else "", row["runtime"], *times, ratio)
    return shown


def _chosen(only: str) -> list[Network]:
    found = [network for network in NETWORKS if only.lower() in network.name.lower()]
    if not found:
        raise unknown("network", only, [network.name for network in NETWORKS])
    return found


def main(
    output: Annotated[Path, typer.Option(help="File for the results.")] = Path(
        "build/bench/results.json"
    ),
    target: Annotated[str, typer.Option(help="planish's target.")] = "native",
    runs: Annotated[int, typer.Option(min=1, help="Timed calls of each.")] = 300,
    only: Annotated[str, typer.Option(help="Networks whose name has this in it.")] = "",
) -> None:
    """Measure planish beside other runtimes, one sample on one thread."""
    console = Console()
    rows: list[dict[str, Any]] = []
    try:
        for network in _chosen(only):
            with console.status(network.name):
                rows += measure(network, target, runs)
    except PlanishError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    console.print(table(rows))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_beside(output, (json.dumps(rows, indent=2) + "\n").encode())
    console.print(f"written: {output}")


if __name__ == "__main__":
    typer.run(main)

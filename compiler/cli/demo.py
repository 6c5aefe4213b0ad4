"""`planish demo`: the whole way on a real network, with a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import print_json, say, stderr, stdout


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the report and what was made.")
    ] = Path("build/demo"),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of distillation; the demo's own by default.")
    ] = None,
    target: Annotated[str, typer.Option(help="Hardware to compile for.")] = "native",
    images: Annotated[
        int | None, typer.Option(min=100, help="Use this many images only, for a quick look.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Prune, distil, quantize and compile a trained ResNet-20; measure and report it."""
    with stderr().status("loading"):
        from ..demo import Settings, run_demo
        from .progress import Drawn
        from .tables import peer_table, stage_table, verdict_table

    settings = Settings(output=output, seed=seed, epochs=epochs, target=target, images=images)
    with Drawn(stderr()) as progress:
        report = run_demo(settings, progress)
    if as_json:
        print_json(report.to_json())
        return
    console = stdout()
    console.print(f"\n[bold]{report.title}[/bold] on {report.target}, {report.processor}")
    for table in (stage_table, peer_table, verdict_table):
        console.print(table(report))
    kept = sum(verdict.passed for verdict in report.verdicts)
    color = "green" if kept == len(report.verdicts) else "yellow"
    console.print(f"[{color}]{kept} of {len(report.verdicts)} promises kept[/{color}]")
    say(f"report: {output / 'report.html'}")

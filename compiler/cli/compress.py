"""`planish compress`: a model goes through a recipe's passes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planish.ir.errors import OptionError, PlanishError

from .console import check_writable, print_json, say, stderr, stdout
from .data import DATA_HELP, MEAN_HELP, SIZE_HELP, STD_HELP, load_data
from .models import MODEL_HELP, SHAPE_HELP, load_model

if TYPE_CHECKING:
    from ..report import Report


def compress(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    recipe: Annotated[Path, typer.Argument(help="The passes, as TOML.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write the graph to.")],
    data: Annotated[Path | None, typer.Option(help=DATA_HELP)] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Labelled data to measure each stage's accuracy on.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Hardware to compress for.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Samples a batch.")] = 64,
    size: Annotated[str | None, typer.Option(help=SIZE_HELP)] = None,
    mean: Annotated[str | None, typer.Option(help=MEAN_HELP)] = None,
    std: Annotated[str | None, typer.Option(help=STD_HELP)] = None,
    input_shape: Annotated[list[str] | None, typer.Option(help=SHAPE_HELP)] = None,
    report: Annotated[
        list[Path] | None, typer.Option(help="Report to write, .html or .json; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run a recipe on a model; save the compressed graph and a report."""
    reports = report or []
    check_writable(output, *reports)
    for path in reports:
        _check_suffix(path)
    from ..pipeline import Pipeline
    from .progress import Drawn

    pipeline = Pipeline.from_toml(recipe)
    reader = next((item.name for item in pipeline.passes if item.needs_data), None)
    if reader is not None and data is None:
        raise OptionError(f"{reader} needs data", cure="give --data")
    batches = load_data(data, batch, size, mean, std)
    measured = load_data(validation, batch, size, mean, std)
    graph = load_model(model, input_shape or ())
    with Drawn(stderr()) as progress:
        result = pipeline.run(
            graph, batches, validation=measured, target=target, seed=seed, progress=progress
        )
    result.report.title = model
    written: list[Path] = []
    try:
        for path, save in (
            *((path, result.report.save) for path in reports),
            (output, result.graph.save),
        ):
            fresh = not path.exists()
            save(path)
            written += [path] if fresh else []
    except PlanishError:
        for path in written:  # all files or none
            path.unlink(missing_ok=True)
        raise
    if as_json:
        print_json({"output": str(output), **result.report.to_json()})
        return
    _print(result.report)
    say(f"wrote {', '.join(str(path) for path in (output, *reports))}")


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in (".json", ".html", ".htm"):
        raise OptionError(
            f"can't write a report as {path.name!r}", cure="end the name in .json or .html"
        )


def _print(report: Report) -> None:
    from .tables import refusal_table, stage_table

    console = stdout()
    console.print(stage_table(report))
    if report.refusals:
        console.print(refusal_table(report))
    if report.int8_mac_coverage is not None:
        console.print(f"int8: {report.int8_mac_coverage:.2%} of the MACs")

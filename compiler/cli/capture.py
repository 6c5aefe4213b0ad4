"""`planish capture`: a model becomes a graph on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import check_writable, print_json, say, stderr
from .models import MODEL_HELP, SHAPE_HELP


def capture(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write the graph to.")],
    input_shape: Annotated[list[str] | None, typer.Option(help=SHAPE_HELP)] = None,
    raw: Annotated[bool, typer.Option(help="Keep the graph as exported, not canonical.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Capture a model and save its graph."""
    check_writable(output)
    from .models import load_model

    with stderr().status("reading the model"):  # drawn on a terminal only
        graph = load_model(model, input_shape or (), canonicalize=not raw)
    graph.save(output)
    if as_json:
        from .summary import summarize

        summary = summarize(graph)
        print_json({"output": str(output), **summary})
    else:
        say(f"wrote {output}: {len(graph.calls)} operators, level {graph.level.label}")

"""`planish compile`: a graph becomes an artifact for one target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from .console import bytes_text, check_writable, print_json, say, stderr
from .models import MODEL_HELP, SHAPE_HELP, load_model


def compile_(
    graph: Annotated[str, typer.Argument(help=MODEL_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    target: Annotated[str, typer.Option(help="Hardware; `planish targets` lists it.")] = "native",
    batch: Annotated[int, typer.Option(min=1, help="Samples a call.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads that a call may use.")] = 1,
    io: Annotated[str, typer.Option(help="float, or integer for quantized values.")] = "float",
    strict: Annotated[bool, typer.Option(help="An operator left in float is an error.")] = False,
    input_shape: Annotated[list[str] | None, typer.Option(help=SHAPE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Compile a graph of any level to one file of machine code."""
    check_writable(output)
    from planish.backends.targets import find_target

    chosen = find_target(target)
    model = load_model(graph, input_shape or ())
    from ..compilation import compile as build

    with stderr().status(f"compiling for {chosen.name}"):
        kind = cast("Literal['float', 'integer']", io)  # compile checks it
        artifact = build(model, chosen, batch=batch, threads=threads, io=kind, strict=strict)
    artifact.save(output)
    coverage = artifact.coverage
    if as_json:
        summary = {"output": str(output), "target": chosen.name, "bytes": artifact.nbytes}
        print_json({**summary, **coverage})
        return
    share = f"{coverage['int8_mac_coverage']:.2%} of the MACs in int8"
    say(f"wrote {output}: {bytes_text(artifact.nbytes)} for {chosen.name}, {share}")
    for item in coverage["fallbacks"]:
        say(f"  float: {item['operator']} {item['node']}: {item['reason']}")

"""`planish inspect`: what a model is made of, and what of it would run in int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import (
    ANY_WIDTH,
    bytes_text,
    count_text,
    plain_table,
    print_json,
    shape_text,
    stderr,
    stdout,
)
from .models import MODEL_HELP, SHAPE_HELP

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BAR = 20
"""Characters of the bar that stands for all MACs."""


def inspect(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    target: Annotated[str | None, typer.Option(help="Hardware to judge by.")] = None,
    input_shape: Annotated[list[str] | None, typer.Option(help=SHAPE_HELP)] = None,
    text: Annotated[bool, typer.Option("--text", help="Print the graph, one node a line.")] = False,
    raw: Annotated[bool, typer.Option(help="Show the graph as exported, not canonical.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show inputs, outputs, operators, sizes, and what would run in int8."""
    from .models import load_model
    from .summary import summarize

    chosen = _target(target)
    with stderr().status("reading the model"):  # drawn on a terminal only
        graph = load_model(model, input_shape or (), canonicalize=not raw)
    if text:
        typer.echo(graph.text(), nl=False)
        return
    with stderr().status("finding out what can run in int8"):
        summary = {"model": model, "target": chosen, **summarize(graph, chosen)}
    if as_json:
        print_json(summary)
    else:
        _print(summary)


def _target(name: str | None) -> str | None:
    if name is None:
        return None
    from planish.backends.targets import find_target

    return find_target(name).name


def _print(summary: dict[str, Any]) -> None:
    from rich.columns import Columns
    from rich.markup import escape

    console = stdout()
    console.print(f"[bold]{escape(summary['model'])}[/bold]  level {summary['level']}")
    console.print(
        Columns([_tensors(summary), _sizes(summary), _operators(summary)], padding=(0, 3))
    )
    console.print(_fitted_layers(summary, console))
    _print_coverage(summary)


def _tensors(summary: dict[str, Any]) -> Table:
    from rich.markup import escape

    table = plain_table("", "tensor", "shape", "dtype")
    for kind in ("inputs", "outputs"):
        for item in summary[kind]:
            shape = shape_text(item["shape"])
            table.add_row(kind.removesuffix("s"), escape(item["name"]), shape, item["dtype"])
    return table


def _sizes(summary: dict[str, Any]) -> Table:
    table = plain_table("size", "")
    table.add_row("parameters", f"{summary['parameters']:,}")
    table.add_row("MACs, one sample", f"{summary['macs']:,}")
    table.add_row("stored", bytes_text(summary["bytes"]))
    return table


def _operators(summary: dict[str, Any]) -> Table:
    table = plain_table("operator", "count")
    table.columns[1].justify = "right"
    for name, count in summary["operators"].items():
        table.add_row(name, str(count))
    return table


def _fitted_layers(summary: dict[str, Any], console: Console) -> Table:
    """Return the layers' table; where the terminal is narrow the bar gives way, not the names."""
    table = _layers(summary, BAR)
    options = console.options.update_width(ANY_WIDTH)
    missing = console.measure(table, options=options).maximum - console.width
    return table if missing <= 0 else _layers(summary, max(0, BAR - missing))


def _layers(summary: dict[str, Any], width: int) -> Table:
    """Return the layers' table with bars of at most this width."""
    from rich.markup import escape

    table = plain_table("layer", "operator", "channels", "MACs", "share")
    table.columns[0].overflow = "fold"
    for column in table.columns[2:4]:
        column.justify = "right"
    table.columns[4].no_wrap = True
    total = max(summary["macs"], 1)
    for layer in summary["layers"]:
        share = layer["macs"] / total
        bar = f"[cyan]{'█' * round(share * width):<{width}}[/cyan] " if width else ""
        table.add_row(
            escape(layer["name"]),
            layer["operator"],
            str(layer["channels"]),
            count_text(layer["macs"]),
            f"{bar}{share:6.1%}",
        )
    return table


def _print_coverage(summary: dict[str, Any]) -> None:
    from rich.markup import escape

    console = stdout()
    verb = "runs" if summary["level"] == "integer" else "can run"
    place = f" on {summary['target']}" if summary["target"] else ""
    share = summary["int8_mac_coverage"]
    color = "green" if share == 1 else "yellow"
    console.print(f"[{color}]{share:.2%}[/{color}] of the MACs {verb} in int8{place}")
    if not summary["fallbacks"]:
        console.print("nothing falls back to float")
        return
    table = plain_table("stays in float", "layer", "MACs", "reason")
    for item in summary["fallbacks"]:
        operator, node, reason = (escape(item[key]) for key in ("operator", "node", "reason"))
        table.add_row(operator, node, count_text(item["macs"]), reason)
    console.print(table)

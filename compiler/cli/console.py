"""What the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planish.ir.errors import PlanishError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ANY_WIDTH = 10_000
"""Characters of a line that is not for a terminal."""


def stdout() -> Console:
    """Return the console for results. Made anew: tests exchange sys.stdout."""
    return _console(to_stderr=False)


def stderr() -> Console:
    """Return the console for messages and progress."""
    return _console(to_stderr=True)


def _console(*, to_stderr: bool) -> Console:
    """Return a console that breaks and cuts lines on a terminal only: files take any width."""
    from rich.console import Console

    # The file itself: what goes on while a spinner turns may exchange sys.stderr.
    console = Console(file=sys.stderr if to_stderr else sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = ANY_WIDTH
    return console


def print_json(data: Any) -> None:
    """Print `data` as the only thing on stdout."""
    import typer

    typer.echo(json.dumps(data, indent=1))


def say(text: str) -> None:
    """Print a message for the person in front of the screen."""
    stderr().print(text, markup=False)  # the names of layers and files are not markup


def fail(text: str) -> None:
    """Print an error as one line."""
    import typer

    line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    typer.echo(f"planish: {line}", err=True)


def check_writable(*paths: Path | None) -> None:
    """Raise PlanishError before the work is done if its result can't be written."""
    for path in paths:
        if path is None:
            continue
        folder = path.parent
        if not folder.is_dir():
            raise PlanishError(f"no such folder: {folder}", where=str(path))
        if path.exists() and not path.is_file():
            what = "folder" if path.is_dir() else "device"
            raise PlanishError(f"a {what} stands where the file should be", where=str(path))
        if not os.access(folder, os.W_OK):
            raise PlanishError(f"the folder {folder} is not writable", where=str(path))


def plain_table(*names: str) -> Table:
    """Return an empty table with these columns, all of them text."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name)
    return table


def shape_text(shape: Any) -> str:
    """Return sizes as "N x 1 x 28 x 28"."""
    return " x ".join("N" if size is None else str(size) for size in shape) or "scalar"


def count_text(value: float) -> str:
    """Return a count with a unit: 8608640 -> "8.61 M"."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:g}"


def bytes_text(value: float | None) -> str:
    """Return a size with a unit: 1095016 -> "1.10 MB"."""
    if value is None:
        return "–"  # noqa: RUF001
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:g} B"


@cache
def is_interactive() -> bool:
    """Whether progress can be drawn."""
    return stderr().is_terminal

"""How a benchmark is a command: planish's errors are one line, and status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from planish.ir.errors import PlanishError


def run_command(main: Callable[..., None]) -> None:
    """Run a function as typer does."""
    try:
        typer.run(main)
    except PlanishError as error:
        typer.echo(f"benchmarks: {error}", err=True)
        sys.exit(2)

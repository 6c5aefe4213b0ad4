"""`planish unpack`: what a program without Python needs of an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import bytes_text, print_json, say


def unpack(
    artifact: Annotated[Path, typer.Argument(help="What `planish compile` wrote.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to write to.")
    ],
    target: Annotated[
        str | None, typer.Option(help="Which of its targets; needed where it has several.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Write an artifact's library, packed parameters and interface for a program without Python."""
    from planish.backends.deployment import INTERFACE, LIBRARY, PARAMETERS
    from planish.backends.deployment import unpack as write

    name = write(artifact, output, target)
    sizes = {file: Path(output, file).stat().st_size for file in (LIBRARY, PARAMETERS, INTERFACE)}
    if as_json:
        print_json({"output": output, "target": name, "bytes": sizes})
        return
    say(f"wrote {output} for {name}:")
    for file, size in sizes.items():
        say(f"  {file}: {bytes_text(size)}")

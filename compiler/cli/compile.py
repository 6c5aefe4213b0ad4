"""`planish compile`: a graph becomes an artifact for one target or several."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from planish.ir.errors import FallbackError, OptionError

from .console import bytes_text, check_writable, print_json, say, stderr
from .devices import COMPILER_HELP, SYSROOT_HELP
from .models import MODEL_HELP, SHAPE_HELP, load_model

if TYPE_CHECKING:
    from planish.backends.artifact import Artifact

TARGET_HELP = (
    "Hardware; `planish targets` lists it. Of several, with commas between them, the artifact holds"
    " the code of each, and loading chooses."
)

LISTED = 5
"""Float operators that are named; the others are counted."""


def compile_(
    graph: Annotated[str, typer.Argument(help=MODEL_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    target: Annotated[str, typer.Option(help=TARGET_HELP)] = "native",
    batch: Annotated[int, typer.Option(min=1, help="Samples a call.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads that a call may use.")] = 1,
    io: Annotated[str, typer.Option(help="float, or integer for quantized values.")] = "float",
    strict: Annotated[bool, typer.Option(help="An operator left in float is an error.")] = False,
    database: Annotated[
        Path | None, typer.Option(help="A folder that `planish tune` filled for the target.")
    ] = None,
    cross_compiler: Annotated[str | None, typer.Option(help=COMPILER_HELP)] = None,
    sysroot: Annotated[Path | None, typer.Option(help=SYSROOT_HELP)] = None,
    input_shape: Annotated[list[str] | None, typer.Option(help=SHAPE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Compile a graph of any level to one file of machine code."""
    check_writable(output)
    from planish.backends.targets import find_targets

    chosen = find_targets(split_targets(target))
    with stderr().status("reading the model"):  # drawn on a terminal only
        model = load_model(graph, input_shape or ())
    from ..compilation import compile as build

    with (
        _flags_named(),
        stderr().status(f"compiling for {', '.join(each.name for each in chosen)}"),
    ):
        kind = cast("Literal['float', 'integer']", io)  # compile checks it
        artifact = build(
            model,
            chosen,
            batch=batch,
            threads=threads,
            io=kind,
            strict=strict,
            database=database,
            cross_compiler=cross_compiler,
            sysroot=sysroot,
        )
    artifact.save(output)
    if as_json:
        print_json({"output": str(output), **_summary(artifact)})
    else:
        _say(output, artifact)


@contextlib.contextmanager
def _flags_named() -> Iterator[None]:
    """Let what `strict` refuses speak of the command line."""
    try:
        yield
    except FallbackError as error:
        cure = str(error.cure).replace("with strict=False", "without --strict")
        raise FallbackError(error.what, where=error.where, cure=cure) from error


def split_targets(names: str) -> list[str]:
    """Return the names in a list with commas.

    Raises:
        OptionError: One of them is empty.
    """
    found = [name.strip() for name in names.split(",")]
    if not all(found):
        raise OptionError(
            f"can't read the targets {names!r}", cure="write them as x86-64-v3,x86-avx512vnni"
        )
    return found


def _summary(artifact: Artifact) -> dict[str, Any]:
    return {
        "target": artifact.target,
        "targets": artifact.targets,
        "runs_here": artifact.runs_here,
        "bytes": artifact.nbytes,
        "memory": asdict(artifact.memory),
        "choices": artifact.manifest["choices"],
        **artifact.coverage,
    }


def _say(output: Path, artifact: Artifact) -> None:
    share = f"{artifact.coverage['int8_mac_coverage']:.2%} of the MACs in int8"
    names = ", ".join(artifact.targets)
    say(f"wrote {output}: {bytes_text(artifact.nbytes)} for {names}, {share}")
    _say_plan(artifact)
    for reason in artifact.passed_over.values():
        say(f"  passed over here: {reason}")
    if not artifact.runs_here:
        say(f"  this machine can't run it{_emulator_hint(artifact)}")
    elif len(artifact.targets) > 1:
        say(f"  this machine runs it as {artifact.target}")
    _say_floats(artifact)


def _say_plan(artifact: Artifact) -> None:
    """Print the memory and the kernels' origin: each target has its own."""
    memory, choices = artifact.memory, artifact.manifest["choices"]
    whose = f" for {artifact.target}" if len(artifact.targets) > 1 else ""
    say(
        f"  memory{whose}: {bytes_text(memory.activations)} of activations a call"
        f" (unplanned {bytes_text(memory.unplanned)}, at least {bytes_text(memory.least)}),"
        f" {bytes_text(memory.parameters)} of packed parameters"
    )
    if choices:
        sources = {"database": "from the database", "table": "from the shipped table"}
        parts = [f"{n} {sources.get(source, 'by the rules')}" for source, n in choices.items()]
        say(f"  kernels of layers{whose}: {', '.join(parts)}")


def _emulator_hint(artifact: Artifact) -> str:
    """Return where artifacts for GPUs can be tried; nothing for those that hold other code."""
    machines = {entry["machine"] for entry in artifact.manifest["targets"]}
    return "; an emulator checks it without a GPU: docs/cuda.md" if machines == {"cuda"} else ""


def _say_floats(artifact: Artifact) -> None:
    fallbacks = artifact.coverage["fallbacks"]
    history = {entry["name"] for entry in artifact.manifest["history"]}
    if fallbacks and "lower-to-integer" not in history:
        say(
            f"  float: nothing is quantized, all {len(fallbacks)} operators compute in float; "
            "quantize with `planish compress` and a recipe with insert-qdq"
        )
        return
    for item in fallbacks[:LISTED]:
        say(f"  float: {item['operator']} {item['node']}: {item['reason']}")
    if len(fallbacks) > LISTED:
        say(f"  float: {len(fallbacks) - LISTED} more, {len(fallbacks)} in all; --json lists them")

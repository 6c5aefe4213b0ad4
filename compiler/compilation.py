"""compile: a graph of any level becomes an artifact for one target or several."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from planish.backends import build
from planish.backends.targets import find_targets
from planish.ir.errors import ModelError, OptionError, PipelineError
from planish.ir.graph import Graph
from planish.ir.history import HistoryEntry
from planish.ir.level import Level
from planish.ir.verifier import verify
from planish.passes.context import Context
from planish.passes.lower_to_integer import LowerToInteger

if TYPE_CHECKING:
    from planish.backends.artifact import Artifact
    from planish.backends.choice import Choices
    from planish.backends.link import Toolchain
    from planish.backends.target import Target


def compile(
    graph: Graph,
    target: str | Target | Sequence[str | Target] = "native",
    *,
    batch: int = 1,
    threads: int = 1,
    io: Literal["float", "integer"] = "float",
    strict: bool = False,
    database: str | os.PathLike[str] | Choices | None = None,
    cross_compiler: str | os.PathLike[str] | None = None,
    sysroot: str | os.PathLike[str] | None = None,
) -> Artifact:
    """Compile a graph; the graph itself is untouched.

    A float graph becomes float kernels; a quantized graph is lowered to integers first.

    Args:
        graph: Of any level.
        target: A target's name ("native", "x86-64-v3") or a Target. Of a list of them the artifact
            holds the code of each, and loading chooses the best that the machine runs.
        batch: The size that an open batch is fixed to.
        threads: How many threads the kernels are laid out for.
        io: "float", or "integer" to take and return quantized values.
        strict: Make an operator that falls back to float an error.
        database: A folder that `planish.tune` filled for this target (or what answers like one):
            measured choices of kernels, before those that planish ships.
        cross_compiler: The C++ compiler that links code for another machine than this one, such as
            "aarch64-linux-gnu-g++", which is the default for 64-bit ARM.
        sysroot: The other machine's root folder, for compilers that don't bring their own.

    Raises:
        OptionError: An unknown target or option value, a target given twice, or a database that
            can't be read or is for another target.
        PipelineError: Teacher hooks are still in the graph.
        VerifyError: The graph breaks an invariant of its level.
        OperatorError: `strict`, and an operator fell back to float (names it, with the reason).
        TargetError: The target can't be built for here, or no C++ compiler was found.
    """
    if io not in ("float", "integer"):
        raise OptionError(f"unknown io {io!r}", cure="choose one of float, integer")
    check_options(graph, batch, threads)
    choices = open_database(database, target)
    try:
        fixed = backend_graph(graph, batch)
        return build(
            fixed,
            target,
            threads=threads,
            io=io,
            strict=strict,
            history=fixed.history,
            database=choices,
            toolchain=find_toolchain(cross_compiler, sysroot),
        )
    except (MemoryError, OverflowError) as error:
        raise OptionError(
            f"the network at batch {batch} does not fit this machine's memory",
            cure="compile it for a smaller batch",
        ) from error


def find_toolchain(
    cross_compiler: str | os.PathLike[str] | None, sysroot: str | os.PathLike[str] | None
) -> Toolchain | None:
    """Return what links code for other machines; None where the user names nothing.

    Raises:
        OptionError: One of both is no path, or an empty one.
    """
    given = {"cross_compiler": cross_compiler, "sysroot": sysroot}
    for name, value in given.items():
        if value is not None and not (isinstance(value, str | os.PathLike) and os.fspath(value)):
            raise OptionError(f"{name} must be a path, not {value!r}")
    if cross_compiler is None and sysroot is None:
        return None
    from planish.backends.link import Toolchain

    words = (None if value is None else os.fspath(value) for value in given.values())
    return Toolchain(*words)


def backend_graph(graph: Graph, batch: int = 1) -> Graph:
    """Return what backends take: a graph of any level, verified, lowered, its batch fixed.

    Raises:
        VerifyError: The graph breaks an invariant of its level.
    """
    verify(graph, after="before compile")
    integer = _lowered(graph) if graph.level is Level.QUANTIZED else graph
    return integer.fix_batch(batch)


def open_database(
    database: str | os.PathLike[str] | Choices | None,
    target: str | Target | Sequence[str | Target],
) -> Choices | None:
    """Return a database's choices; a folder is opened, and is for one target.

    Raises:
        OptionError: It is no database, there are several targets, or it is a folder that can't be
            read or is for another target.
    """
    if not isinstance(database, str | os.PathLike):
        if database is not None and (isinstance(database, bytes) or not hasattr(database, "find")):
            raise OptionError(
                f"a {type(database).__name__} is no tuning database",
                cure="give the folder that planish.tune filled",
            )
        return database
    targets = find_targets(target)
    if len(targets) > 1:
        raise OptionError(
            "a tuning database is for one target, and several are compiled for",
            where=os.fspath(database),
            cure="compile for one target",
        )
    from planish.backends.tuning.database import Database

    return Database(database, targets[0], create=False)


def check_options(graph: Graph, batch: int, threads: int) -> None:
    """Raise an error if a graph can't be compiled with these options.

    Raises:
        ModelError: It is no graph.
        OptionError: The batch or the threads are no counts.
        PipelineError: Teacher hooks are still in the graph.
    """
    if not isinstance(graph, Graph):
        raise ModelError(f"a {type(graph).__name__} is no graph", cure="capture the model first")
    for name, value in (("batch", batch), ("threads", threads)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise OptionError(f"{name} must be a whole number of at least 1, not {value!r}")
    if graph.annotations:
        raise PipelineError(
            f"the graph still carries {', '.join(sorted(graph.annotations))}",
            where="compile",
            cure="run remove-teacher-hooks first",
        )


def _lowered(graph: Graph) -> Graph:
    """Lower a quantized graph, and leave a record in its history."""
    step = LowerToInteger()
    result = step.run(graph.copy(), Context())
    entry = HistoryEntry(
        step.name, step.options(), changed=True, refused=result.refused, notes=result.notes
    )
    result.graph.history = [*graph.history, entry]
    return result.graph

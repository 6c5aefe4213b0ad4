"""`planish bench --profile`: the time of every layer of a compiled model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .console import count_text, print_json, stderr, stdout
from .tables import NOTHING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.table import Table

    from planish.backends.profiling import Profile, StepTime
    from planish.ir.graph import Graph

_NUMBERS = (("us", 7), ("share", 5), ("GMAC/s", 6), ("of peak", 7))
_SMALL = 0.001  # of the time: rows below have no line of their own, unless they multiply


def show_profiles(
    graph: Graph,
    model: str,
    target: str,
    threads: Sequence[int],
    batch: int,
    rounds: int,
    database: Path | None = None,
    *,
    as_json: bool,
) -> None:
    """Compile a graph for profiling, time its steps, print them.

    Args:
        graph: Of any level.
        model: What the user calls it.
        target: Hardware; this machine must have it.
        threads: One profile for each number.
        batch: Samples a call.
        rounds: How often every step runs.
        database: A folder of measured choices of kernels.
        as_json: Whether to print JSON.
    """
    from planish.backends.profiling import profile

    from ..compilation import backend_graph, open_database

    fixed = backend_graph(graph, batch)
    choices = open_database(database, target)
    profiles: list[Profile] = []
    for count in threads:
        with stderr().status(f"profiling on {count} thread(s)"):
            run = profile(fixed, target, threads=count, rounds=rounds, database=choices)
            profiles.append(run)
    if as_json:
        print_json({"model": model, "profiles": [p.to_json() for p in profiles]})
        return
    for found in profiles:
        stdout().print(profile_table(found))
        stdout().print(kind_table(found))
        for line in _totals(found):
            stdout().print(line, soft_wrap=True)


def profile_table(profile: Profile) -> Table:
    """Return one row a layer and kernel family, in the network's order; tiny ones together."""
    from functools import reduce

    from rich.markup import escape

    from planish.backends.profiling import StepTime

    title = f"{profile.target}, {profile.threads} thread(s)"
    table = _table(title, ("layer", "kernel"))
    rows = profile.by_layer()
    shown = [row for row in rows if row.macs or row.microseconds >= _SMALL * profile.sum]
    for row in shown:
        table.add_row(escape(row.layer), escape(_kernel(row)), *_numbers(profile, row))
    if len(shown) < len(rows):
        rest = reduce(StepTime.joined, (row for row in rows if row not in shown))
        name = f"{len(rows) - len(shown)} below {_SMALL:.1%} each"
        table.add_row(name, "", *_numbers(profile, rest), style="dim")
    return table


def kind_table(profile: Profile) -> Table:
    """Return one row a kernel family and kind of layer, the slowest first."""
    table = _table("by kernel", ("kernel",))
    for row in profile.by_kind():
        if row.microseconds >= _SMALL * profile.sum:
            table.add_row(_kernel(row), *_numbers(profile, row))
    return table


def _table(title: str, names: tuple[str, ...]) -> Table:
    """Return a table whose names are cut where there is no room, and whose numbers never are."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    taken = sum(width + 2 for _, width in _NUMBERS) + 2 * len(names) + 5
    room = max((stdout().width - taken) // len(names), 12)
    for name in names:
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=room)
    for name, width in _NUMBERS:
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    return table


def _kernel(row: StepTime) -> str:
    name = row.kind if row.kind.startswith(row.family) else f"{row.family} {row.kind}".strip()
    return name if row.calls == 1 else f"{name}, {row.calls} calls"


def _numbers(profile: Profile, row: StepTime) -> list[str]:
    share = profile.peak_share(row)
    return [
        f"{row.microseconds:.1f}",
        f"{row.microseconds / profile.sum:.1%}" if profile.sum else NOTHING,
        f"{row.gmacs:.0f}" if row.gmacs else "",
        f"{share:.0%}" if share else "",
    ]


def _totals(profile: Profile) -> list[str]:
    whole, steps = profile.whole, profile.sum
    gmacs = profile.macs / whole / 1e3 if whole else 0.0
    lines = [
        f"whole call {_time(whole)}: {count_text(profile.macs)} MACs, {gmacs:.0f} GMAC/s; "
        f"sum of {len(profile.steps)} steps {_time(steps)}"
        + (f" ({steps / whole:.1%})" if whole else "")
        + f"; fastest of {profile.rounds} rounds"
    ]
    if profile.peak:
        width = f"{profile.instruction} on {profile.vector_bits} bits"
        lines.append(
            f"peak of {width}, {profile.threads} thread(s): {profile.peak:.0f} GMAC/s; "
            f"the whole call reaches {gmacs / profile.peak:.0%}"
        )
    return lines


def _time(microseconds: float) -> str:
    return f"{microseconds / 1e3:.3f} ms" if microseconds >= 100 else f"{microseconds:.1f} us"

"""The page docs/benchmarks/README.md: tables from the JSON files beside it.

What stands between two markers of one name is made here; all else on the page is written by hand
and stays as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from planish.ir.files import write_beside

from .plot import draw
from .results import (
    OWN,
    PEERS,
    Found,
    Row,
    beside_ratio,
    by_runtime,
    measured,
    missing,
    number,
    peer_ratio,
    runtimes,
    speed_up,
    thread_counts,
)

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "README.md"
_SMALL = 0.005  # of a network's time: kernels below are left out of the page


def write_page(folder: Path) -> list[Path]:
    """Write README.md and a picture for each JSON file of a folder; return what was written.

    The page is the one in docs/benchmarks, with the sections that the folder has results for.
    """
    text = put_section(PAGE.read_text(), r"[^>]*", "")
    written = [folder / "README.md"]
    for path in sorted(folder.glob("*.json")):
        found: Found = json.loads(path.read_text())
        picture = path.with_suffix(".svg")
        write_beside(picture, draw(found))
        written.append(picture)
        for name, make in _SECTIONS.items():
            content = make(found, path.stem) + "\n"
            text = put_section(text, re.escape(f"{path.stem} {name}"), content)
    write_beside(written[0], text.encode())
    return written


def put_section(text: str, name: str, content: str) -> str:
    """Return a page with what stands between a section's markers exchanged.

    Args:
        text: The page; without the markers it stays as it is.
        name: Of the section, or of several: a regular expression.
        content: Whole lines, or nothing.
    """
    pattern = re.compile(f"(<!-- begin ({name}) -->\n).*?(<!-- end \\2 -->\n)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}{content}{found[3]}", text)


def machine_section(found: Found, stem: str) -> str:
    """Return where, when, with what and how it was measured."""
    packages = ("planish", "onnxruntime", "openvino", "apache-tvm", "torch", "python")
    versions = ", ".join(f"{n} {found['versions'][n]}" for n in packages if n in found["versions"])
    words = ["python -m benchmarks"]
    words += [f"--isa {found['isa']}"] if found["isa"] else []
    words += [f"--target {found['target']}"] if stem not in ("native", found["isa"]) else []
    return (
        f"{found['processor']}, target {found['target']}, {found['date']}; {versions}.\n"
        f"Made by `{' '.join(words)} --write-docs`; all numbers are in [{stem}.json]({stem}.json)."
    )


def result_section(found: Found, stem: str) -> str:
    """Return the table of times, what is missing in it, and the picture."""
    counts = thread_counts(found)
    ran = runtimes(found)
    names = ["network", "threads", *(f"{name}, ms" for name in ran), "ratio", "goal", "apart"]
    cells = [_result_cells(row, count, ran) for count in counts for row in measured(found)]
    absent = [f"- {line}" for line in missing(found)]
    lines = _table(names, cells) + (["", "Not measured:", "", *absent] if absent else [])
    picture = f"![time over that of the faster other runtime]({stem}.svg)"
    return "\n".join([*lines, "", picture])


def _result_cells(row: Row, threads: int, ran: Sequence[str]) -> list[str]:
    results = by_runtime(row, threads)
    times = [
        f"{results[n]['min_ms']:.3f} ({results[n]['median_ms']:.3f})" if n in results else ""
        for n in ran
    ]
    others = [results[n] for n in PEERS if "steps_apart" in results.get(n, {})]
    return [
        row["network"],
        str(threads),
        *times,
        number(peer_ratio(row, threads)),
        number(None if row["beside"] else row["goal"]),
        ", ".join(f"{other['steps_apart']:.0f}" for other in others),
    ]


def scaling_section(found: Found, stem: str) -> str:
    """Return what threads gain, and what pruning."""
    del stem
    counts = thread_counts(found)
    names = ["network", *(f"{count} threads, times as fast as one" for count in counts[1:])]
    gains = [
        [row["network"], *(number(speed_up(row, count)) for count in counts[1:])]
        for row in measured(found)
    ]
    pruned = [
        f"{row['network']}: {number(beside_ratio(found, row, count))} of the time of "
        f"{row['beside']} on {count} thread(s); goal {number(row['goal'])}.  "
        for row in measured(found)
        if row["beside"]
        for count in counts
    ]
    return "\n".join([*_table(names, gains), "", *pruned])


def file_section(found: Found, stem: str) -> str:
    """Return the table of compile time, load time, sizes and memory, on one thread."""
    del stem
    names = ["compile, s", "load, s", "artifact, MB", "int8 weights, MB", "activations, MB"]
    rows: list[list[str]] = []
    for row in measured(found):
        own = by_runtime(row, thread_counts(found)[0]).get(OWN)
        if own is not None:
            sizes = (own["bytes"], row["int8_bytes"], own["memory"]["activations"])
            times = (f"{own['compile_s']:.1f}", f"{own['load_s']:.2f}")
            rows.append([row["network"], *times, *(f"{size / 1e6:.2f}" for size in sizes)])
    return "\n".join(_table(["network", *names], rows))


def kernel_section(found: Found, stem: str) -> str:
    """Return the table of the large networks' kernels by kind of layer: time, speed, peak."""
    del stem
    rows: list[list[str]] = []
    peak = ""
    for row in measured(found):
        profile = row.get("profile")
        if not profile or row["goal"] is None:
            continue
        peak = (
            f"Peak of {profile['instruction']} on {profile['vector_bits']} bits: "
            f"{profile['peak'] or 0:.0f} GMAC/s, one thread.\n\n"
        )
        rows += [
            [row["network"], *_kind_cells(kind, profile["sum"])]
            for kind in profile["kinds"]
            if kind["microseconds"] >= _SMALL * profile["sum"]
        ]
    names = ["network", "kernel", "layer", "calls", "us", "share", "GMAC/s", "of peak"]
    return peak + "\n".join(_table(names, rows, words=3))


def _kind_cells(kind: dict[str, Any], whole: float) -> list[str]:
    share = kind["peak_share"]
    return [
        kind["family"],
        kind["kind"],
        str(kind["calls"]),
        f"{kind['microseconds']:.0f}",
        f"{kind['microseconds'] / whole:.1%}",
        f"{kind['gmacs']:.0f}" if kind["gmacs"] else "",
        f"{share:.0%}" if share else "",
    ]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """Return lines of Markdown; all columns but the first ones are numbers."""
    rule = ["---" if i < words else "--:" for i in range(len(names))]
    return ["| " + " | ".join(row) + " |" for row in [names, rule, *rows]]


_SECTIONS = {
    "machine": machine_section,
    "results": result_section,
    "scaling": scaling_section,
    "files": file_section,
    "kernels": kernel_section,
}

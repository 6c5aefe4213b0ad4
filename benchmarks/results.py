"""What `python -m benchmarks` measured, and the numbers that follow from it.

A file of results is {"processor", "versions", "target", "isa", "date", "networks": [row, ...]}; a
row is {"network", "goal", "beside", "int8_bytes", "results", "not_measured", "profile"}, or a
network's name with the reason why it wasn't measured. Results and profiles are those of
`planish bench --json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper
from rich import box
from rich.table import Table

OWN = "planish"
PEERS = ("ONNX Runtime", "OpenVINO")
Found = dict[str, Any]
Row = dict[str, Any]


def int8_bytes(path: Path) -> int:
    """Return the bytes of a quantized ONNX file's int8 weights."""
    tensors = onnx.load(str(path)).graph.initializer
    kept = [t for t in tensors if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in kept)


def measured(found: Found) -> list[Row]:
    """Return the rows of networks that were measured."""
    return [row for row in found["networks"] if "reason" not in row]


def thread_counts(found: Found) -> list[int]:
    """Return the numbers of threads that were measured."""
    return sorted({result["threads"] for row in measured(found) for result in row["results"]})


def runtimes(found: Found) -> list[str]:
    """Return the runtimes that ran anything, planish first."""
    ran = {result["runtime"] for row in measured(found) for result in row["results"]}
    return [name for name in (OWN, *PEERS) if name in ran]


def by_runtime(row: Row, threads: int) -> dict[str, dict[str, Any]]:
    """Return a network's results on so many threads, by the runtime's name."""
    return {r["runtime"]: r for r in row["results"] if r["threads"] == threads}


def peer_ratio(row: Row, threads: int) -> float | None:
    """Return planish's fastest call over that of the faster other runtime."""
    results = by_runtime(row, threads)
    others = [results[name]["min_ms"] for name in PEERS if name in results]
    return results[OWN]["min_ms"] / min(others) if OWN in results and others else None


def beside_ratio(found: Found, row: Row, threads: int) -> float | None:
    """Return a pruned network's fastest call over that of the network that it was made from."""
    for other in measured(found):
        if other["network"] == row["beside"]:
            own, whole = (by_runtime(r, threads).get(OWN) for r in (row, other))
            return own["min_ms"] / whole["min_ms"] if own and whole else None
    return None


def speed_up(row: Row, threads: int) -> float | None:
    """Return one thread's fastest call over that of several, in planish."""
    one, several = (by_runtime(row, count).get(OWN) for count in (1, threads))
    return one["min_ms"] / several["min_ms"] if one and several else None


def result_table(found: Found, threads: int) -> Table:
    """Return the results on so many threads for a terminal: fastest calls in ms, ratios, goals.

    A pruned network's goal is for "pruned", its time over that of the whole network.
    """
    title = f"{threads} thread" + ("s" if threads > 1 else "")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("network", overflow="ellipsis", no_wrap=True, max_width=18)
    names = runtimes(found)
    for name in (*names, "ratio", "pruned", "goal"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    for row in measured(found):
        results = by_runtime(row, threads)
        times = [f"{results[n]['min_ms']:.3f}" if n in results else "" for n in names]
        values = (peer_ratio(row, threads), beside_ratio(found, row, threads), row["goal"])
        table.add_row(row["network"], *times, *map(number, values))
    return table


def number(value: float | None) -> str:
    """Return a ratio as text; nothing where there is none."""
    return "" if value is None else f"{value:.2f}"


def missing(found: Found) -> list[str]:
    """Return a line for each network and runtime that wasn't measured, with the reason.

    What holds for a runtime on every network is one line.
    """
    lines = [f"{r['network']}: {r['reason']}" for r in found["networks"] if "reason" in r]
    rows = measured(found)
    absent: dict[str, list[str]] = {}
    for row in rows:
        for item in row["not_measured"]:
            networks = absent.setdefault(f"{item['runtime']}: {item['reason']}", [])
            networks += [row["network"]] if row["network"] not in networks else []
    for reason, networks in absent.items():
        everywhere = len(networks) == len(rows) > 1
        lines.append(reason if everywhere else f"{', '.join(networks)}, {reason}")
    return lines

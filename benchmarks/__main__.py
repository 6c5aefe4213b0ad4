"""Measure planish beside ONNX Runtime and OpenVINO: `python -m benchmarks` (`make bench`).

Every network becomes one quantized ONNX file. `planish bench` runs it in all runtimes, in turns, in
a process of its own for each group of networks; a second one profiles planish's kernels. Prints a
table; writes results, a page and a picture to build/bench, or with --write-docs to docs/benchmarks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import planish
from planish.backends.target import Target
from planish.backends.targets import find_target
from planish.ir import ModelError, OptionError, PlanishError, unknown
from planish.ir.files import write_beside

from .networks import GROUPS, Network, prepare
from .page import write_page
from .results import int8_bytes, missing, result_table, thread_counts

BUILD = Path("build/bench")
DOCS = Path("docs/benchmarks")
_PEERS = "onnxruntime,openvino"


def chosen(only: str) -> list[tuple[Network, ...]]:
    """Return the groups with a network whose name has `only` in it.

    Raises:
        OptionError: There is none.
    """
    found = [g for g in GROUPS if any(only.lower() in network.name.lower() for network in g)]
    if not found:
        raise unknown("network", only, [network.name for group in GROUPS for network in group])
    return found


def measure(
    networks: list[tuple[Network, Path]], options: list[str], profile: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run `planish bench` on a group; return a row a network, and what the machine is.

    Args:
        networks: With their ONNX files.
        options: Of `planish bench`, without `--threads` and `--runs` those of the profile, too.
        profile: Whether to profile each as well.
    """
    paths = [str(path) for _, path in networks]
    found = _planish("bench", *paths, "--against", _PEERS, *options)
    rows: list[dict[str, Any]] = []
    for network, path in networks:
        results, missing = (
            [row for row in found[key] if row["model"] == str(path)]
            for key in ("results", "not_measured")
        )
        rows.append(
            {
                "network": network.name,
                "goal": network.goal,
                "beside": networks[0][0].name if network.keep is not None else None,
                "int8_bytes": int8_bytes(path),
                "results": results,
                "not_measured": missing,
            }
        )
        if profile:
            (rows[-1]["profile"],) = _planish("bench", str(path), "--profile", *_alone(options))[
                "profiles"
            ]
    machine = {key: found[key] for key in ("processor", "versions", "target", "isa")}
    return rows, machine


def _alone(options: list[str]) -> list[str]:
    """Return the options of a profile: on one thread."""
    at = options.index("--threads")
    return [*options[:at], *options[at + 2 :]]


def _planish(*words: str) -> dict[str, Any]:
    """Run planish's command line in a new process; return the JSON that it prints.

    Raises:
        ModelError: It failed; what it said is on the screen.
    """
    command = [sys.executable, "-m", "planish.cli", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise ModelError(f"planish {' '.join(words)} ended with status {done.returncode}")
    return json.loads(done.stdout)


def main(
    only: Annotated[str, typer.Option(help="Networks whose name has this in it.")] = "",
    threads: Annotated[str, typer.Option(help="Threads of a call.")] = "1,2",
    runs: Annotated[int, typer.Option(min=1, help="Timed calls of each.")] = 30,
    target: Annotated[str, typer.Option(help="planish's target (native).")] = "",
    isa: Annotated[str, typer.Option(help="avx2: nobody uses newer instructions.")] = "",
    database: Annotated[str, typer.Option(help="A folder that `planish tune` filled.")] = "",
    profile: Annotated[bool, typer.Option(help="Time planish's kernels one by one, too.")] = True,
    write_docs: Annotated[
        bool, typer.Option("--write-docs", help=f"Write to {DOCS} instead of {BUILD}.")
    ] = False,
) -> None:
    """Measure planish beside other runtimes, the same quantized models in all of them."""
    console = Console()
    options = ["--threads", threads, "--runs", str(runs)]
    given = {"--target": target, "--isa": isa, "--database": database}
    options += [word for pair in given.items() if pair[1] for word in pair]
    folder = DOCS if write_docs else BUILD
    began = time.time()
    rows: list[dict[str, Any]] = []
    machine: dict[str, Any] = {}
    try:
        if write_docs and only:
            raise OptionError("--write-docs takes all networks", cure="leave out --only")
        pruned_for = find_target(target or ("x86-64-v3" if isa else "native"))
        for group in chosen(only):
            ready = _ready(group, pruned_for, rows, console)
            if ready:
                measured, machine = measure(ready, options, profile)
                rows += measured
    except PlanishError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    found = {**machine, "planish": planish.__version__, "date": time.strftime("%Y-%m-%d")}
    found |= {"seconds": round(time.time() - began), "networks": rows}
    for count in thread_counts(found):
        console.print(result_table(found, count))
    for line in missing(found):
        console.print(f"not measured: {line}", markup=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{isa or target or 'native'}.json"
    write_beside(path, (json.dumps(found, indent=1) + "\n").encode())
    for written in (path, *write_page(folder)):
        console.print(f"written: {written}")


def _ready(
    group: tuple[Network, ...], target: Target, rows: list[dict[str, Any]], console: Console
) -> list[tuple[Network, Path]]:
    """Return a group's networks with their files; add a row with a reason for what can't be had."""
    models = BUILD / "models"
    models.mkdir(parents=True, exist_ok=True)
    found: list[tuple[Network, Path]] = []
    for network in group:
        with console.status(f"preparing {network.name}"):
            try:
                found.append((network, prepare(network, models, target)))
            except ModelError as error:
                rows.append({"network": network.name, "reason": str(error)})
    return found


if __name__ == "__main__":
    typer.run(main)

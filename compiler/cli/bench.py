"""`planish bench`: how long one call takes, alone or beside another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.ir.errors import OptionError, unknown

from .console import print_json, say, stdout
from .models import MODEL_HELP, SHAPE_HELP

if TYPE_CHECKING:
    from planish.backends.artifact import Artifact

    from ..peers import Runtime

_AGAINST = ("onnxruntime",)


def bench(
    artifact: Annotated[Path, typer.Argument(help="What `planish compile` wrote.")],
    against: Annotated[str | None, typer.Option(help="Another runtime: onnxruntime.")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"Float model for the other runtime. {MODEL_HELP}")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="An .npz file to quantize the other runtime's model with.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed calls of each.")] = 300,
    profile: Annotated[bool, typer.Option(help="Time every layer.")] = False,
    target: Annotated[str, typer.Option(help="Hardware; `planish targets` lists it.")] = "native",
    threads: Annotated[str, typer.Option(help="Threads a call, such as 1 or 1,2.")] = "1",
    batch: Annotated[int, typer.Option(min=1, help="Samples a call.")] = 1,
    input_shape: Annotated[list[str] | None, typer.Option(help=SHAPE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the latency of an artifact: minimum and median, in turns with other runtimes."""
    if profile:
        from .profile import show_profiles

        counts = [int(n) for n in threads.split(",")]
        shapes = input_shape or ()
        show_profiles(str(artifact), target, counts, batch, runs, shapes, as_json=as_json)
        return
    _check_options(against, model)
    import tempfile

    from planish.backends import load

    from ..latency import interleaved
    from ..peers import Runtime

    loaded = load(artifact)
    inputs = _example_inputs(loaded)
    own = Runtime("planish", str(artifact), lambda _: loaded(*inputs), nbytes=loaded.nbytes)
    with tempfile.TemporaryDirectory() as folder:
        others = _others(against, model, input_shape or [], data, loaded, Path(folder))
        found = [own, *(other for other in others if other.reason is None)]
        calls = {f"{r.name} {r.model}": _call(r, inputs[0]) for r in found}
        timings = interleaved(calls, runs)
    rows = [
        {
            "name": runtime.name,
            "model": runtime.model,
            "median_ms": timing.median,
            "min_ms": timing.minimum,
            "runs": timing.runs,
            "bytes": runtime.nbytes,
        }
        for runtime, timing in zip(found, timings.values(), strict=True)
    ]
    missing = [{"name": r.name, "model": r.model, "reason": r.reason} for r in others if r.reason]
    built_for = loaded.manifest["threads"]
    if as_json:
        print_json({"threads": built_for, "results": rows, "not_measured": missing})
    else:
        _print(rows, missing, built_for)


def _check_options(against: str | None, model: str | None) -> None:
    if against is not None and against not in _AGAINST:
        raise unknown("runtime", against, _AGAINST)
    if (against is None) != (model is None):
        raise OptionError(
            "--against and --model belong together",
            cure="give both: --against onnxruntime --model graph",
        )


def _example_inputs(artifact: Artifact) -> list[Any]:
    """Return inputs that fit the artifact: noise, since zeros may be quicker than real values."""
    import numpy as np

    random = np.random.default_rng(0)
    return [random.random(info.shape).astype(info.dtype) for info in artifact.inputs]


def _others(
    against: str | None,
    model: str | None,
    shapes: list[str],
    data: Path | None,
    artifact: Artifact,
    folder: Path,
) -> list[Runtime]:
    if against is None or model is None:
        return []
    from ..data_sources import NpzBatches
    from ..peers import onnx_runtimes
    from .models import load_model

    if artifact.manifest["threads"] != 1:
        say("note: the artifact uses several threads, the other runtime one")
    graph = load_model(model, shapes)
    calibration = None if data is None else NpzBatches(data)
    return onnx_runtimes(graph, model, folder, calibration)


def _call(runtime: Runtime, images: Any) -> Any:
    return lambda: runtime.run(images)


def _print(rows: list[dict[str, Any]], missing: list[dict[str, Any]], threads: int) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("runtime")
    table.add_column("model")
    for name in ("median", "minimum", "against planish"):
        table.add_column(name, justify="right")
    for row in rows:
        ratio = row["median_ms"] / rows[0]["median_ms"]
        table.add_row(
            row["name"],
            row["model"],
            f"{row['median_ms']:.4f} ms",
            f"{row['min_ms']:.4f} ms",
            "" if row is rows[0] else f"{ratio:.2f} x",
        )
    stdout().print(table)
    stdout().print(f"{rows[0]['runs']} runs each, in turns; artifact for {threads} thread(s)")
    for item in missing:
        say(f"not measured: {item['name']} {item['model']}: {item['reason']}")

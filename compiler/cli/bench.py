"""`planish bench`: how long a call takes, alone, beside other runtimes, or layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.ir.errors import OptionError

from .console import print_json, say, stderr, stdout
from .devices import COMPILER_HELP, RPC_HELP, SYSROOT_HELP, device_address, load_here
from .models import MODEL_HELP, SHAPE_HELP, is_artifact, load_model
from .tables import NOTHING

if TYPE_CHECKING:
    from rich.table import Table

    from ..side_by_side import Result, Settings, Subject

_MODELS_HELP = f"An artifact; or a model, which is compiled first: {MODEL_HELP}"


def bench(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help=_MODELS_HELP)],
    against: Annotated[
        str, typer.Option(help="Other runtimes for the same model: onnxruntime,openvino.")
    ] = "",
    profile: Annotated[bool, typer.Option("--profile", help="Time every layer instead.")] = False,
    target: Annotated[
        str | None, typer.Option(help="Hardware; `planish targets` lists it (native).")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Threads of a call, such as 1 or 1,2 (1).")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples of a call.")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="Timed calls of each.")] = 30,
    isa: Annotated[
        str | None,
        typer.Option(help="avx2: nobody uses newer instructions; the target is x86-64-v3."),
    ] = None,
    database: Annotated[
        Path | None, typer.Option(help="A folder that `planish tune` filled for the target.")
    ] = None,
    rpc: Annotated[str | None, typer.Option(help=RPC_HELP)] = None,
    cross_compiler: Annotated[str | None, typer.Option(help=COMPILER_HELP)] = None,
    sysroot: Annotated[Path | None, typer.Option(help=SYSROOT_HELP)] = None,
    input_shape: Annotated[list[str] | None, typer.Option(help=SHAPE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure how long a call of each model takes: minimum and median, all in turns.

    With --against, other runtimes run the same model: a quantized one as the same QDQ ONNX file.
    """
    chosen = target or ("native" if isa is None else "x86-64-v3")
    counts = _counts(threads)
    shapes = input_shape or []
    if rpc is not None and (profile or against or isa):
        raise OptionError(
            "--rpc times planish's whole calls on a device",
            cure="leave out --profile, --against and --isa",
        )
    if profile:
        _check_profile(models, against)
        from .profile import show_profiles

        graph = load_model(models[0], shapes)
        show_profiles(
            graph, models[0], chosen, counts or [1], batch, runs, database, as_json=as_json
        )
        return
    from ..side_by_side import Settings

    names = tuple(name.strip() for name in against.split(",") if name.strip())
    settings = Settings(names, chosen, batch=batch, runs=runs, isa=isa, database=database)
    if rpc is not None:
        settings = replace(settings, cross_compiler=cross_compiler, sysroot=sysroot)
        results = _measure_there(models, shapes, counts, settings, device_address(rpc))
        order = f"on {rpc}, by its own clock"
    else:
        results = _measure([_subject(m, shapes, target) for m in models], counts, settings)
        order = "in turns"
    if as_json:
        print_json(_json(results, settings, rpc))
    else:
        _print(results, order)


def _counts(text: str | None) -> list[int]:
    """Return the numbers of threads; none where the user gave none."""
    if text is None:
        return []
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise OptionError(f"can't read the threads {text!r}", cure="write 1 or 1,2")
    return counts


def _check_profile(models: Sequence[str], against: str) -> None:
    if against:
        raise OptionError("--profile times planish alone", cure="leave out --against")
    if len(models) > 1:
        raise OptionError("--profile takes one model", cure="profile one after the other")
    if is_artifact(Path(models[0])):
        raise OptionError(
            "an artifact can't be profiled: it runs as a whole",
            where=models[0],
            cure="give the graph or the ONNX file that it was compiled from",
        )


def _subject(model: str, shapes: Sequence[str], target: str | None) -> Subject:
    from ..side_by_side import Subject

    path = Path(model)
    if _is_artifact(model):
        return Subject(model, artifact=load_here(path, target))
    onnx = path if path.suffix == ".onnx" else None
    return Subject(model, load_model(model, shapes), onnx=onnx)


def _is_artifact(model: str) -> bool:
    path = Path(model)
    return path.suffix == ".planish" or is_artifact(path)


def _measure(
    subjects: Sequence[Subject], counts: Sequence[int], settings: Settings
) -> list[Result]:
    import tempfile

    from ..side_by_side import measure

    own = [s.artifact.manifest["threads"] for s in subjects if s.artifact is not None]
    found: list[Result] = []
    with tempfile.TemporaryDirectory() as folder, stderr().status("loading") as status:
        for count in counts or own[:1] or [1]:
            each = replace(settings, threads=count)
            found += measure(subjects, each, Path(folder), status.update)
    return found


def _measure_there(
    models: Sequence[str],
    shapes: Sequence[str],
    counts: Sequence[int],
    settings: Settings,
    address: tuple[str, int],
) -> list[Result]:
    """Measure on a device, which is asked before models are read."""
    from planish.backends.container import read_file
    from planish.backends.remote.address import require_server

    from ..device_bench import DeviceSubject, measure_on_device

    require_server(address)
    subjects = [
        DeviceSubject(model, content=read_file(model))
        if _is_artifact(model)
        else DeviceSubject(model, load_model(model, shapes))
        for model in models
    ]
    with stderr().status("loading") as status:
        return measure_on_device(subjects, address, settings, counts, status.update)


def _json(results: Sequence[Result], settings: Settings, rpc: str | None) -> dict[str, Any]:
    from ..versions import processor, versions

    measured = [r for r in results if r.timing is not None]
    return {
        "processor": processor() if rpc is None else f"device {rpc}",
        "versions": versions(),
        "target": settings.target,
        "isa": settings.isa,
        "batch": settings.batch,
        "results": [r.to_json() for r in measured],
        "not_measured": [r.to_json() for r in results if r.timing is None],
    }


def _print(results: Sequence[Result], order: str) -> None:
    from ..side_by_side import ratios

    rows = list(zip(results, ratios(results), strict=True))
    for threads in dict.fromkeys(result.threads for result in results):
        stdout().print(_table(threads, [row for row in rows if row[0].threads == threads]))
    runs = next((r.timing.runs for r in results if r.timing is not None), 0)
    stdout().print(
        f"{runs} calls each, {order}. ratio: minimum over that of the first line. apart: the "
        "furthest output from planish's, in steps of its quantization",
        soft_wrap=True,
    )
    for result in results:
        if result.timing is None:
            say(f"not measured: {result.runtime} on {result.model}: {result.reason}")


def _table(threads: int, rows: Sequence[tuple[Result, float | None]]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    title = f"{threads} thread" + ("s" if threads > 1 else "")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("model", overflow="ellipsis", no_wrap=True)
    table.add_column("runtime", no_wrap=True, min_width=12)
    for name, width in (("minimum", 10), ("median", 10), ("ratio", 5), ("apart", 5)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    for result, ratio in rows:
        if result.timing is None or ratio is None:
            continue
        table.add_row(
            escape(Path(result.model).name),
            result.runtime,
            f"{result.timing.minimum:.3f} ms",
            f"{result.timing.median:.3f} ms",
            f"{ratio:.2f}",
            NOTHING if result.apart is None else f"{result.apart:.1f}",
        )
    return table

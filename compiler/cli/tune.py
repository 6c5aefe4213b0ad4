"""`planish tune`: measure which kernels a network's layers run fastest with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import fail, print_json, say, stderr, stdout
from .devices import RPC_HELP, device_address
from .models import MODEL_HELP, SHAPE_HELP, load_model

if TYPE_CHECKING:
    from planish.backends.tuning.tuner import Progress, TuneResult

_INTERRUPTED = 130
_LINE_EVERY = 10.0  # seconds between two lines where no bar can be drawn


def tune(
    graph: Annotated[str, typer.Argument(help=MODEL_HELP)],
    database: Annotated[Path, typer.Option(help="Folder of the results; made if it is missing.")],
    trials: Annotated[int, typer.Option(min=1, help="How many new choices to measure at most.")],
    target: Annotated[str, typer.Option(help="Hardware; `planish targets` lists it.")] = "native",
    batch: Annotated[int, typer.Option(min=1, help="Samples a call.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads that a call may use.")] = 1,
    seconds: Annotated[float | None, typer.Option(help="How long to go on at most.")] = None,
    rpc_tracker: Annotated[
        str | None, typer.Option(help="host:port of TVM's RPC tracker, to measure on devices.")
    ] = None,
    device_key: Annotated[str | None, typer.Option(help="Which of the tracker's devices.")] = None,
    rpc: Annotated[str | None, typer.Option(help=RPC_HELP)] = None,
    measure_seconds: Annotated[
        float, typer.Option(help="How long one measurement takes; longer is less noisy.")
    ] = 0.03,
    input_shape: Annotated[list[str] | None, typer.Option(help=SHAPE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure kernels for a network's layers; `planish compile --database` uses the results."""
    from planish.backends.targets import find_target

    if rpc is not None:
        device_address(rpc)
    # What "native" is on a device, the device says.
    chosen = target if rpc is not None and target == "native" else find_target(target)
    model = load_model(graph, input_shape or ())
    from ..tuning import tune as tune_graph

    shown = _Shown()
    try:
        with shown:
            result = tune_graph(
                model,
                chosen,
                trials=trials,
                database=database,
                batch=batch,
                threads=threads,
                seconds=seconds,
                rpc_tracker=rpc_tracker,
                device_key=device_key,
                rpc=rpc,
                measure_seconds=measure_seconds,
                progress=shown.update,
            )
    except KeyboardInterrupt as error:
        fail(f"interrupted; {database} has every measurement that was finished")
        raise typer.Exit(_INTERRUPTED) from error
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)
    for text in (*result.notes, *result.errors):
        say(f"note: {text}")
    if result.stopped == "interrupted":
        fail(f"interrupted; {result.trials} new measurements are kept in {database}")
        raise typer.Exit(_INTERRUPTED)


class _Shown:
    """A bar with trial, layer and the gain so far; plain lines where there is no terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        self._console = stderr()
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[gain]}"),
            console=self._console,
            refresh_per_second=2,  # drawing takes time away from what is measured
            transient=True,
        )
        self._task = self._bars.add_task("reading the network", total=None, gain="")
        self._printed = time.monotonic()

    def __enter__(self) -> None:
        if self._console.is_terminal:
            self._bars.start()

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def update(self, progress: Progress) -> None:
        """Show one measurement."""
        if progress.error is not None:
            self._console.print(f"{progress.layer}: {progress.error}", style="red", markup=False)
        gain = f"network {_gain(progress.network_untuned_us, progress.network_tuned_us)}"
        left = f"{gain}, {_time(progress.seconds_left)} left"
        layer = f"{progress.layer}: {_best(progress)}"
        if self._console.is_terminal:
            self._bars.update(
                self._task,
                description=layer,
                completed=progress.trial,
                total=progress.trials,
                gain=left,
            )
        elif time.monotonic() - self._printed >= _LINE_EVERY:
            self._printed = time.monotonic()
            say(f"trial {progress.trial}/{progress.trials}, {layer}, {left}")


def _best(progress: Progress) -> str:
    if progress.best_us is None:
        return "nothing measured"
    untuned = progress.untuned_us
    gain = f" ({_gain(untuned, progress.best_us)})" if untuned is not None else ""
    return f"best {progress.best_us:.1f} us{gain}"


def _gain(untuned: float | None, tuned: float | None) -> str:
    """Return how much time is saved, in percent."""
    if not untuned or tuned is None:
        return ""
    saved = 100 * (1 - tuned / untuned)
    return f"{saved:.1f} % less" if saved >= 0.05 else "no gain"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _print(result: TuneResult) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption="microseconds of one layer")
    table.add_column("layer", overflow="fold", min_width=16)
    for name in ("times", "untuned", "tuned", "gain", "measured"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("choice", overflow="fold")
    for layer in result.layers:
        table.add_row(
            escape(layer.layers[0]),
            str(len(layer.layers)),
            _microseconds(layer.untuned_us),
            _microseconds(layer.tuned_us),
            _gain(layer.untuned_us, layer.tuned_us) if layer.tuned else "",
            f"{layer.measured}/{layer.offered}",
            escape(_choice(layer.strategy, layer.knobs)) if layer.tuned else "as untuned",
        )
    stdout().print(table)
    stdout().print(
        f"all layers, as often as the network has them: {result.untuned_us:.0f} us untuned, "
        f"{result.tuned_us:.0f} us tuned ({_gain(result.untuned_us, result.tuned_us) or 'nothing'})"
    )
    stdout().print(
        f"{result.trials} trials in {_time(result.seconds)}"
        + (f", stopped: {result.stopped}" if result.stopped not in (None, "trials") else "")
        + f"; database {result.database}",
        markup=False,
    )


def _microseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _choice(strategy: str, knobs: dict[str, Any]) -> str:
    """Return a choice in few columns: the knobs' values without their names."""
    return " ".join([strategy, *map(str, knobs.values())])

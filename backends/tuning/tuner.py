"""Tunes the layers of a network: which kernel, with which knobs, is fastest on the machine."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tvm.s_tir import meta_schedule as ms

from ..matching import require_runnable
from ..plan import Plan
from ..target import Target, require_processor
from .database import Database, Record
from .measuring import Settings, Timed
from .runners import KernelBuilder, KernelRunner, Measuring, Shop, Stopped, Trial
from .search import Context, Enumeration, KnobModel, evolution
from .tasks import Task, collect_tasks

# Choices that are built together, then measured one after the other.
BATCH = 8
# Seconds that one measurement takes, half of them for the rules' own choice.
MEASURE_SECONDS = 0.03
# Spaces up to this size are measured as a whole, however few the trials are.
SMALL = 8
# Choices this close to the fastest are measured once more, for longer.
CLOSE = 1.03
_MOST_AGAIN = 3


@dataclass(frozen=True)
class LayerResult:
    """What tuning found for the layers of one workload.

    Attributes:
        layers: Their names.
        workload: As `choosing.workload` spells it.
        strategy: Of the best choice.
        knobs: Of the best choice.
        untuned: The strategy without tuning.
        untuned_us: Microseconds of one layer without tuning; None if nothing was measured.
        tuned_us: With the best choice.
        measured: How many choices have a valid measurement.
        offered: How many there are.
        tuned: Whether the best choice is another one than without tuning.
        errors: What could not be measured or gave wrong numbers, one line each.
    """

    layers: list[str]
    workload: str
    strategy: str
    knobs: dict[str, Any]
    untuned: str
    untuned_us: float | None
    tuned_us: float | None
    measured: int
    offered: int
    tuned: bool
    errors: list[str]


@dataclass(frozen=True)
class Progress:
    """How far tuning is, after each measurement.

    Attributes:
        layer: The layer that was measured, and how many are like it.
        trial: Which trial of this run it was.
        trials: How many there will be at most.
        us: Microseconds of the measured choice; None if it failed.
        best_us: Of the best choice of this layer so far.
        untuned_us: Of the choice without tuning.
        error: Why it failed, if it did.
        network_untuned_us: Sum over the network's measured layers, untuned.
        network_tuned_us: The same with the best choices so far.
        seconds_left: A guess.
    """

    layer: str
    trial: int
    trials: int
    us: float | None
    best_us: float | None
    untuned_us: float | None
    error: str | None
    network_untuned_us: float
    network_tuned_us: float
    seconds_left: float


@dataclass(frozen=True)
class TuneResult:
    """What a run of tuning did.

    Attributes:
        layers: One entry a workload, in the network's order.
        trials: Choices that this run measured.
        seconds: How long it took.
        stopped: Why it ended before all was measured: "interrupted", "time", "trials" or None.
        database: The folder.
        notes: What was odd.
    """

    layers: list[LayerResult]
    trials: int
    seconds: float
    stopped: str | None
    database: str
    notes: list[str] = field(default_factory=list)

    @property
    def untuned_us(self) -> float:
        """Microseconds of all measured layers without tuning, as often as the network has them."""
        return sum((layer.untuned_us or 0.0) * len(layer.layers) for layer in self.layers)

    @property
    def tuned_us(self) -> float:
        """The same with the best choices."""
        return sum((layer.tuned_us or 0.0) * len(layer.layers) for layer in self.layers)

    @property
    def errors(self) -> list[str]:
        """What could not be measured or gave wrong numbers."""
        return [error for layer in self.layers for error in layer.errors]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        sums = {"untuned_us": self.untuned_us, "tuned_us": self.tuned_us}
        return {**asdict(self), **sums}


def tune_plan(
    plan: Plan,
    database: Database,
    *,
    trials: int,
    seconds: float | None = None,
    tracker: tuple[str, int] | None = None,
    key: str = "",
    server: tuple[str, int] | None = None,
    measure_seconds: float = MEASURE_SECONDS,
    progress: Callable[[Progress], None] | None = None,
    seed: int = 0,
) -> TuneResult:
    """Measure choices of a lowered network's layers, and keep the results.

    Ctrl-C ends it after the measurements that are under way, with what was found so far; a second
    Ctrl-C ends it at once.

    Args:
        plan: A lowered network, without a database.
        database: Where results go; what it has is not measured again.
        trials: How many choices to measure at most.
        seconds: How long to go on at most.
        tracker: (host, port) of an RPC tracker whose servers measure; this machine by default.
        key: The key of those servers.
        server: (host, port) of an RPC server that measures alone, instead.
        measure_seconds: How long one measurement takes, half of it for the rules' own choice.
        progress: Called after each measurement, perhaps from another thread.
        seed: Of the search.

    Raises:
        TargetError: It is a GPU's, this machine can't run its code, or there is no tracker or
            server.
        PlanishError: The rules' own choice can't be built, or the database can't be written.
    """
    require_processor(plan.target)
    settings = Settings(plan.threads, measure_seconds, tracker, key, server)
    workers = count_workers(plan.target, settings)
    begun = time.monotonic()
    tasks = collect_tasks(plan)
    new = {task.workload: task.new(database.known(task.workload, task.base)) for task in tasks}
    planned = min(trials, sum(map(len, new.values())))
    view = _View(tasks, database, planned, progress)
    with tempfile.TemporaryDirectory(prefix="planish-tune-") as folder:
        shop = Shop(
            tasks,
            database,
            settings,
            Path(folder),
            limit=trials,
            deadline=None if seconds is None else begun + seconds,
            on_record=view.show,
        )
        with _interrupts(shop), Measuring(shop, workers) as measuring:
            if planned:
                _search(tasks, new, shop, measuring, trials, seed)
                _measure_again([task for task in tasks if new[task.workload]], shop, measuring)
    if shop.failure is not None:
        raise shop.failure
    results = [_result(task, database) for task in tasks]
    stopped = shop.reason
    return TuneResult(
        results,
        shop.trials,
        time.monotonic() - begun,
        stopped,
        str(database.path),
        list(database.notes),
    )


def count_workers(target: Target, settings: Settings) -> int:
    """Return how many measurements can run at once.

    Raises:
        TargetError: Nothing can measure the target's code.
    """
    if settings.remote:
        from .remote import count_servers

        return count_servers(settings)
    where = "--rpc HOST:PORT, or --rpc-tracker and --device-key"
    require_runnable(target, f"measure on a machine that can: {where}")
    return 1


def _search(
    tasks: Sequence[Task],
    new: dict[str, list[int]],
    shop: Shop,
    measuring: Measuring,
    trials: int,
    seed: int,
) -> None:
    """Let MetaSchedule's scheduler share the trials among the layers."""
    busy = [task for task in tasks if new[task.workload]]
    enough = sum(len(new[task.workload]) for task in busy) <= trials
    share = max(SMALL, trials // len(busy))
    batch = max(1, min(BATCH, trials // len(busy)))
    contexts: list[ms.TuneContext] = [
        Context(
            task.workload,
            task.choices,
            Enumeration(new[task.workload])  # type: ignore[arg-type]
            if enough or len(new[task.workload]) <= share
            else evolution(len(task.choices), new[task.workload][:2]),
            1 + seed + number,
        )
        for number, task in enumerate(busy)
    ]
    under_way: dict[str, Trial] = {}
    model = KnobModel({task.workload: task.choices for task in busy})
    scheduler = ms.task_scheduler.GradientBased(seed=1 + seed)
    try:
        scheduler.tune(
            contexts,
            [float(len(task.labels)) for task in busy],
            1 << 30,  # the shop counts, since what is known already is no trial
            1 << 20,
            batch,
            KernelBuilder(shop, under_way),  # type: ignore[arg-type]
            KernelRunner(shop, under_way, measuring),  # type: ignore[arg-type]
            [ms.measure_callback.UpdateCostModel(), ms.measure_callback.AddToDatabase()],
            ms.database.MemoryDatabase(),
            model,  # type: ignore[arg-type]
        )
    except Exception:
        # Stopped has come through TVM, perhaps as another type.
        if shop.reason is None:
            raise


def _measure_again(tasks: Sequence[Task], shop: Shop, measuring: Measuring) -> None:
    """Measure the fastest choices of each layer once more: the best of many was lucky too."""
    ended = shop.reason
    if ended == "trials":
        shop.reason = None  # these are no trials
    under_way: list[Future[Timed | str]] = []
    with contextlib.suppress(Stopped):
        for task in tasks:
            measured = shop.database.measured(task.workload)
            rivals = sorted(
                (key for key in measured if key in task.keys[1:]),
                key=lambda key: measured[key].ratio,
            )
            least = measured[rivals[0]].ratio if rivals else 1.0
            close = [key for key in rivals if measured[key].ratio <= least * CLOSE]
            for key in close[:_MOST_AGAIN] if least < 0.99 else []:
                shop.check()
                trial = shop.build(task, task.keys.index(key), again=True)
                under_way.append(measuring.begin(trial))
    for outcome in under_way:
        outcome.result()
    shop.reason = shop.reason or ended


@contextlib.contextmanager
def _interrupts(shop: Shop) -> Iterator[None]:
    """Take Ctrl-C as a wish to stop, the second one as an order; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        if shop.reason == "interrupted":
            raise KeyboardInterrupt
        shop.reason = None
        shop.stop("interrupted")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _result(task: Task, database: Database) -> LayerResult:
    measured = database.measured(task.workload)
    best = database.best(task.workload)
    choice = best.choice if best else task.untuned
    untuned = measured.get(task.key(task.untuned)) or measured.get(task.keys[0])
    errors = [
        f"{task.labels[0]}: {record.strategy} {dict(record.knobs)}: {record.error}"
        for record in database.errors(task.workload)
    ]
    return LayerResult(
        task.labels,
        task.workload,
        choice.strategy,
        dict(choice.knobs),
        task.untuned.strategy,
        untuned.us if untuned else None,
        best.us if best else None,
        len(set(measured) & set(task.keys)),
        len(task.choices),
        Task.key(choice) != Task.key(task.untuned),
        errors,
    )


class _View:
    """Says after each record how far tuning is."""

    def __init__(
        self,
        tasks: Sequence[Task],
        database: Database,
        trials: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._database = database
        self._trials = trials
        self._progress = progress
        self._begun = time.monotonic()
        self._done = 0
        self._results = {task.workload: _result(task, database) for task in tasks}

    def show(self, task: Task, record: Record) -> None:
        """Report one record."""
        result = self._results[task.workload] = _result(task, self._database)
        self._done = min(self._done + 1, self._trials)
        if self._progress is None:
            return
        known = [r for r in self._results.values() if r.tuned_us is not None]
        each = (time.monotonic() - self._begun) / self._done
        count = len(task.labels)
        self._progress(
            Progress(
                layer=task.labels[0] + (f" and {count - 1} more" if count > 1 else ""),
                trial=self._done,
                trials=self._trials,
                us=record.us,
                best_us=result.tuned_us,
                untuned_us=result.untuned_us,
                error=record.error,
                network_untuned_us=sum((r.untuned_us or 0.0) * len(r.layers) for r in known),
                network_tuned_us=sum((r.tuned_us or 0.0) * len(r.layers) for r in known),
                seconds_left=each * (self._trials - self._done),
            )
        )

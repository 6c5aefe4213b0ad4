"""MetaSchedule's builder and runner for planish's kernels.

The builder makes a library of each choice in this process. The runner measures in other processes:
one for this machine or one device, or as many as an RPC tracker has servers. Each measurement is in
the database before the next one begins; what could not be measured because of a server is tried on
another one.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.builder import BuilderInput, BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.runner import (
    PyRunner,
    PyRunnerFuture,
    RunnerFuture,
    RunnerInput,
    RunnerResult,
)

from planish.ir.errors import OperatorError, PlanishError, TargetError, first_line

from ..choice import Choice
from .database import Database, Record
from .measuring import Settings, Timed
from .space import noted
from .stored import store, store_inputs
from .tasks import Task
from .worker import MeasureError, ServerError, Worker

# Seconds that a measurement may take before its process is killed.
_PATIENCE = 60.0
# How often a measurement is tried where a process is lost, here and on servers.
_ATTEMPTS_HERE, _ATTEMPTS = 2, 3


class Stopped(Exception):  # noqa: N818 - it is no error
    """Tuning ends before its work is done."""


@dataclass(frozen=True)
class Trial:
    """A choice on its way through builder and runner."""

    task: Task
    number: int
    folder: Path
    base_folder: Path
    again: bool = False


class Shop:
    """What builder and runner share: the tasks, files, the database, and whether to stop.

    Attributes:
        trials: How many choices were measured or found impossible so far.
        reason: Why tuning stops early, once it does.
        failure: The error that ends it, if one does.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        database: Database,
        settings: Settings,
        folder: Path,
        *,
        limit: int,
        deadline: float | None,
        on_record: Callable[[Task, Record], None],
    ) -> None:
        self.tasks = {task.workload: task for task in tasks}
        self.database = database
        self.settings = settings
        self.trials = 0
        self.reason: str | None = None
        self.failure: PlanishError | None = None
        self._folder = folder
        self._limit = limit
        self._deadline = deadline
        self._on_record = on_record
        self._bases: dict[str, Path] = {}
        self._built = 0
        self._started = 0
        self._lock = threading.Lock()

    def stop(self, reason: str, failure: PlanishError | None = None) -> None:
        """End tuning soon: what is being measured is finished."""
        if self.reason is None:
            self.reason, self.failure = reason, failure

    def check(self) -> None:
        """Raise Stopped if tuning shall end."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.stop("time")
        if self.reason is not None:
            raise Stopped(self.reason)

    def start_trial(self) -> None:
        """Count a trial that begins.

        Raises:
            Stopped: There are no trials left, or tuning shall end.
        """
        self.check()
        if self._started >= self._limit:
            self.stop("trials")
            raise Stopped("trials")
        self._started += 1

    def build(self, task: Task, number: int, *, again: bool = False) -> Trial:
        """Build a choice, and the rules' own the first time.

        Raises:
            PlanishError: The choice can't be built.
            RuntimeError: TVM can't build it.
        """
        base = self._base(task)
        if number == 0:
            return Trial(task, 0, base, base, again)
        self._built += 1
        built = task.bench.build(task.choices[number])
        folder = store(base.parent / f"choice{self._built}", built)
        return Trial(task, number, folder, base, again)

    def _base(self, task: Task) -> Path:
        if task.workload not in self._bases:
            folder = self._folder / f"layer{len(self._bases)}"
            folder.mkdir()
            store_inputs(folder, task.bench.filled(), task.bench.output)
            self._bases[task.workload] = store(folder / "rules", task.bench.build(task.base))
        return self._bases[task.workload]

    def forget(self, trial: Trial) -> None:
        """Delete a trial's files."""
        if trial.folder != trial.base_folder:
            shutil.rmtree(trial.folder, ignore_errors=True)

    def record(
        self, task: Task, number: int, timed: Timed | None, error: str | None, *, again: bool
    ) -> None:
        """Write down what became of a choice."""
        choice, base, settings = task.choices[number], task.base, self.settings
        device = f"{settings.key} {timed.server if timed else ''}".strip()
        record = Record(
            workload=task.workload,
            strategy=choice.strategy,
            knobs=choice.knobs,
            base=(base.strategy, base.knobs),
            us=round(timed.us, 4) if timed and not error else None,
            base_us=round(timed.base_us, 4) if timed and not error else None,
            rounds=timed.rounds if timed else 0,
            device=device if settings.remote else "local",
            error=error,
        )
        with self._lock:
            try:
                self.database.add(record)
            except OSError as problem:
                failure = PlanishError(
                    f"can't write a record: {problem.strerror}", where=str(self.database.path)
                )
                self.stop("the database can't be written", failure)
                return
            self.trials += not again
            self._on_record(task, record)


@derived_object
class KernelBuilder(PyBuilder):
    """Builds what the notes of scheduled modules name."""

    def __init__(self, shop: Shop, trials: dict[str, Trial]) -> None:
        super().__init__()
        self._shop = shop
        self._trials = trials

    def build(self, build_inputs: list[BuilderInput]) -> list[BuilderResult]:
        """Return the folder of each choice; what was measured before is not built.

        Raises:
            Stopped: Tuning shall end.
        """
        self._shop.check()
        return [self._build(*noted(item.mod)) for item in build_inputs]

    def _build(self, workload: str, number: int) -> BuilderResult:
        shop = self._shop
        task = shop.tasks[workload]
        if task.keys[number] in shop.database.known(workload, task.base):
            return BuilderResult(f"known {number} {workload}", None)
        try:
            shop.start_trial()
        except Stopped:
            # The batch's other kernels are measured before the scheduler learns of it.
            return BuilderResult(None, "stopped")
        try:
            trial = shop.build(task, number)
        except (PlanishError, RuntimeError, ValueError, TypeError) as error:
            if number == 0:
                shop.stop("the rules' own choice can't be built", _failed(task, error))
            else:
                problem = f"can't be built: {first_line(error)}"
                shop.record(task, number, None, problem, again=False)
            return BuilderResult(None, first_line(error))
        self._trials[str(trial.folder)] = trial
        return BuilderResult(str(trial.folder), None)


def _failed(task: Task, error: Exception) -> PlanishError:
    if isinstance(error, PlanishError):
        return error
    return TargetError(f"the kernel can't be built: {first_line(error)}", where=task.labels[0])


@derived_object
class KernelFuture(PyRunnerFuture):
    """A measurement that is on its way."""

    def __init__(self, outcome: Future[Timed | str]) -> None:
        super().__init__()
        self._outcome = outcome

    def done(self) -> bool:
        """Whether the result is there."""
        return self._outcome.done()

    def result(self) -> RunnerResult:
        """Wait for the result."""
        found = self._outcome.result()
        if isinstance(found, str):
            return RunnerResult(None, found)
        return RunnerResult([found.us / found.base_us * 1e-6], None)


@derived_object
class KernelRunner(PyRunner):
    """Measures what the builder built."""

    def __init__(self, shop: Shop, trials: dict[str, Trial], measuring: Measuring) -> None:
        super().__init__()
        self._shop = shop
        self._trials = trials
        self._measuring = measuring

    def run(self, runner_inputs: list[RunnerInput]) -> list[RunnerFuture]:
        """Begin to measure; on this machine the results are there when this returns."""
        return [self._run(str(item.artifact_path)) for item in runner_inputs]

    def _run(self, path: str) -> RunnerFuture:
        if path.startswith("known "):
            _, number, workload = path.split(" ", 2)
            return KernelFuture(_done(self._remembered(workload, int(number))))  # type: ignore[return-value]
        return KernelFuture(self._measuring.begin(self._trials.pop(path)))  # type: ignore[return-value]

    def _remembered(self, workload: str, number: int) -> Timed | str:
        task = self._shop.tasks[workload]
        measured = self._shop.database.measured(workload).get(task.keys[number])
        return Timed(measured.ratio, 1.0, 1, 0, 1) if measured else "known to fail"


def _done(value: Timed | str) -> Future[Timed | str]:
    future: Future[Timed | str] = Future()
    future.set_result(value)
    return future


class Measuring:
    """The processes that measure. Use it in a `with` statement."""

    def __init__(self, shop: Shop, workers: int) -> None:
        """Start no process yet.

        Args:
            shop: Where results go.
            workers: How many measure at once: 1 on this machine.
        """
        self._shop = shop
        self._remote = shop.settings.remote
        self._threads = ThreadPoolExecutor(workers)
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._workers = [Worker(remote=self._remote, patience=_PATIENCE) for _ in range(workers)]
        for worker in self._workers:
            self._free.put(worker)

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def begin(self, trial: Trial) -> Future[Timed | str]:
        """Measure a trial: at once on this machine, behind the others on servers."""
        outcome = self._threads.submit(self._measure, trial)
        if not self._remote:
            outcome.result()
        return outcome

    def _measure(self, trial: Trial) -> Timed | str:
        """Measure a trial, write down what became of it, and return that."""
        shop = self._shop
        if shop.reason not in (None, "trials"):
            return "stopped"
        worker = self._free.get()
        timed, error = None, None
        try:
            timed = self._try(worker, trial)
            if timed.difference:
                error = f"wrong numbers: {timed.difference} of {timed.values} values differ"
                self._judge_base(worker, trial)
        except (MeasureError, ServerError) as problem:
            error = str(problem)
        finally:
            self._free.put(worker)
        if not (error and shop.reason):  # an interrupted measurement says nothing
            shop.record(trial.task, trial.number, timed, error, again=trial.again)
        shop.forget(trial)
        return error or timed or "no result"

    def _try(self, worker: Worker, trial: Trial) -> Timed:
        settings = self._shop.settings
        if trial.again:
            settings = replace(settings, seconds=4 * settings.seconds)
        attempts = _ATTEMPTS if settings.remote else _ATTEMPTS_HERE
        for attempt in range(1, attempts + 1):
            try:
                return worker.measure(trial.folder, trial.base_folder, settings)
            except ServerError:
                if attempt == attempts or not self._goes_on():
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _judge_base(self, worker: Worker, trial: Trial) -> None:
        """Stop if it is the rules' own choice that is wrong: dot-product computes every layer."""
        task = trial.task
        plainest = task.bench.build(Choice("dot-product", {}))
        folder = store(trial.base_folder.parent / "dot-product", plainest)
        if self._try(
            worker, replace(trial, folder=trial.base_folder, base_folder=folder)
        ).difference:
            wrong = OperatorError(
                f"strategy {task.base.strategy!r}, which the rules choose, gives other numbers than"
                " dot-product",
                where=task.labels[0],
                cure="mend the strategy; nothing measured beside it is kept",
            )
            self._shop.stop("the rules' own choice is wrong", wrong)

    def _goes_on(self) -> bool:
        """Whether another try may succeed; stop where no server is left."""
        if self._shop.reason:
            return False
        if not self._shop.settings.remote:
            return True
        from .remote import count_servers

        try:
            count_servers(self._shop.settings)
        except TargetError as error:
            self._shop.stop("no server is left", error)
            return False
        return True

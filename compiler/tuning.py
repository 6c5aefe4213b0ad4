"""tune: measure which kernels a network's layers run fastest with, and keep the results."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from planish.backends.builder import fill_plan
from planish.backends.plan import Plan
from planish.backends.remote.address import parse_address
from planish.backends.remote.device import refuse_gpu
from planish.backends.remote.targets import target_for
from planish.backends.targets import find_target
from planish.backends.tuning.database import Database
from planish.backends.tuning.measuring import Settings
from planish.backends.tuning.tuner import (
    MEASURE_SECONDS,
    Progress,
    TuneResult,
    count_workers,
    tune_plan,
)
from planish.ir.errors import OptionError
from planish.ir.graph import Graph

from .compilation import backend_graph, check_options, find_toolchain

if TYPE_CHECKING:
    from planish.backends.target import Target


def tune(
    graph: Graph,
    target: str | Target = "native",
    *,
    trials: int,
    database: str | os.PathLike[str],
    batch: int = 1,
    threads: int = 1,
    seconds: float | None = None,
    rpc_tracker: str | None = None,
    device_key: str | None = None,
    rpc: str | None = None,
    cross_compiler: str | None = None,
    sysroot: str | os.PathLike[str] | None = None,
    measure_seconds: float = MEASURE_SECONDS,
    progress: Callable[[Progress], None] | None = None,
    seed: int = 0,
) -> TuneResult:
    """Measure choices of kernels for a graph's layers; `planish.compile(database=)` uses them.

    What the database knows already is not measured again. Ctrl-C ends it with what was found so
    far; a process that is killed loses the measurement that it was at, nothing more.

    Args:
        graph: Of any level; float layers have no choices.
        target: What to compile for: one target, which this machine or the devices can run.
        trials: How many new choices to measure at most.
        database: A folder, made if it is missing.
        batch: The size that an open batch is fixed to.
        threads: How many threads the kernels are laid out for; each number is tuned by itself.
        seconds: How long to go on at most.
        rpc_tracker: "host:port" of TVM's RPC tracker, to measure on the servers that it knows.
        device_key: The key of those servers.
        rpc: "host:port" of one device's RPC server, to measure there instead; "native" is then
            the best target for that device.
        cross_compiler: As in `planish.compile`.
        sysroot: Likewise.
        measure_seconds: How long one measurement takes; longer is less noisy.
        progress: Called after each measurement, perhaps from another thread.
        seed: Of the search, where there are more choices than trials.

    Raises:
        OptionError: A bad option, a database of another target, or "native" for a device that
            doesn't tell what it is.
        TargetError: Nothing here can run the target's code, or no tracker or server answers.
        VerifyError: The graph breaks an invariant of its level.
    """
    check_options(graph, batch, threads)
    if trials < 1:
        raise OptionError(f"trials is {trials}, it must be at least 1")
    for name, value in (("seconds", seconds), ("measure_seconds", measure_seconds)):
        if value is not None and not value > 0:
            raise OptionError(f"{name} is {value}, it must be above 0")
    if rpc is not None and rpc_tracker is not None:
        raise OptionError("measure on one device or on a tracker's", cure="leave out one of both")
    if (rpc_tracker is None) != (device_key is None):
        raise OptionError(
            "a tracker and a device key belong together",
            cure="give both: rpc_tracker='127.0.0.1:9190', device_key='board'",
        )
    tracker = None
    if rpc_tracker is not None:
        from planish.backends.tuning.remote import parse_tracker

        tracker = parse_tracker(rpc_tracker)
    server = parse_address(rpc, "device", "127.0.0.1:9090") if rpc is not None else None
    chosen = find_target(target) if server is None else target_for(server, target)
    if rpc_tracker is not None:
        refuse_gpu(chosen.name, chosen.machine, rpc_tracker)
    settings = Settings(threads, measure_seconds, tracker, device_key or "", server)
    count_workers(chosen, settings)  # before any work: nobody may be able to measure
    plan = Plan(chosen, threads, toolchain=find_toolchain(cross_compiler, sysroot))
    fill_plan(backend_graph(graph, batch), plan)
    if not plan.layers:
        raise OptionError(
            "the network has no integer convolution or linear layer to tune",
            cure="quantize it first: Pipeline([FoldBatchNorm(), InsertQDQ()])",
        )
    return tune_plan(
        plan,
        Database(database, chosen, create=True),
        trials=trials,
        seconds=seconds,
        tracker=tracker,
        key=device_key or "",
        server=server,
        measure_seconds=measure_seconds,
        progress=progress,
        seed=seed,
    )

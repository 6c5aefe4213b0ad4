"""Where the time of a compiled network goes: every step timed in the network's order.

The graph is compiled once more, into a library whose entry runs any range of its steps. A round
calls them one by one, so that each finds the caches as its predecessor leaves them; a step's time
is its fastest round, less that of a call that runs no step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.ir import Graph

from .builder import fill_plan
from .choice import Choices
from .emit import ENTRY, emit_module
from .layer import Layer
from .link import compile_library
from .matching import require_runnable
from .packing import pack_all
from .peak import instruction_peak
from .plan import Plan
from .runtime import Library
from .target import Target
from .targets import find_target
from .value import Value

_STEM_CHANNELS = 4  # colours, and perhaps one more


@dataclass(frozen=True)
class StepTime:
    """One kernel call, or several together.

    Attributes:
        layer: The model's layer.
        kernel: The function that it calls; of several, the first one's.
        family: The kernel's family: "dot-product"; "float" for what TVM itself lowered.
        kind: Of the layer: "3x3 stride 2", "depthwise 3x3", "linear"; "" where there is none.
        macs: Multiply-accumulates of the model.
        microseconds: Its fastest round.
        calls: How many kernel calls it is.
    """

    layer: str
    kernel: str
    family: str
    kind: str
    macs: int
    microseconds: float
    calls: int = 1

    @property
    def gmacs(self) -> float | None:
        """GMAC/s, or None for a step without multiply-accumulates."""
        return self.macs / self.microseconds / 1e3 if self.macs and self.microseconds else None

    def joined(self, other: StepTime) -> StepTime:
        """Return both as one."""
        return replace(
            self,
            macs=self.macs + other.macs,
            microseconds=self.microseconds + other.microseconds,
            calls=self.calls + other.calls,
        )


@dataclass(frozen=True)
class Profile:
    """A network's steps and their times.

    Attributes:
        target: What it was compiled for.
        instruction: The target's dot-product instruction.
        vector_bits: Width of the target's vectors.
        threads: Threads that a call uses.
        peak: GMAC/s of the instruction on all these threads, if it could be measured.
        whole: Microseconds of the fastest whole call, measured in the same rounds.
        rounds: How often every step ran.
        steps: In order.
    """

    target: str
    instruction: str
    vector_bits: int
    threads: int
    peak: float | None
    whole: float
    rounds: int
    steps: list[StepTime]

    @property
    def sum(self) -> float:
        """Microseconds of all steps."""
        return sum(step.microseconds for step in self.steps)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all steps."""
        return sum(step.macs for step in self.steps)

    def peak_share(self, step: StepTime) -> float | None:
        """Return what part of the instruction's peak a step reaches.

        Winograd's kernels multiply less often than the model says, and may show more than 1.
        """
        return step.gmacs / self.peak if step.gmacs and self.peak else None

    def by_layer(self) -> list[StepTime]:
        """Return the steps in order, those side by side of one layer and family as one."""
        rows: list[StepTime] = []
        for step in self.steps:
            if rows and (rows[-1].layer, rows[-1].family) == (step.layer, step.family):
                rows[-1] = rows[-1].joined(step)
            else:
                rows.append(step)
        return rows

    def by_kind(self) -> list[StepTime]:
        """Return one row a kernel family and kind of layer, the slowest first, without layers."""
        rows: dict[tuple[str, str], StepTime] = {}
        for step in self.steps:
            key, own = (step.family, step.kind), replace(step, layer="")
            rows[key] = rows[key].joined(own) if key in rows else own
        return sorted(rows.values(), key=lambda row: -row.microseconds)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, with the speeds worked out."""
        steps, kinds = (
            [{**asdict(r), "gmacs": r.gmacs, "peak_share": self.peak_share(r)} for r in rows]
            for rows in (self.steps, self.by_kind())
        )
        return {**asdict(self), "sum": self.sum, "macs": self.macs, "steps": steps, "kinds": kinds}


def profile(
    graph: Graph,
    target: str | Target = "native",
    *,
    threads: int = 1,
    rounds: int = 30,
    database: Choices | None = None,
) -> Profile:
    """Time every step of a graph on this machine.

    Args:
        graph: As `build` takes it: integer or float, its batch size fixed.
        target: A target or its name, of this machine.
        threads: Threads that a call may use.
        rounds: How often every step runs.
        database: Measured choices of kernels.

    Raises:
        OperatorError: An operator that can't be compiled.
        OptionError: An unknown target or a bad option.
        TargetError: This machine can't run the target's code, or there is no compiler to link with.
    """
    chosen = find_target(target)
    require_runnable(chosen, "profile a target that this machine runs")
    plan = Plan(chosen, threads, database=database)
    calls = _calls(graph, plan)
    *times, empty, whole = _fastest(calls, rounds)
    peak = instruction_peak(chosen)
    return Profile(
        chosen.name,
        chosen.instruction,
        chosen.vector_bits,
        threads,
        peak and peak * threads,
        max(whole - empty, 0) / 1e3,
        rounds,
        _step_times(plan, [max(taken - empty, 0) / 1e3 for taken in times]),
    )


def _step_times(plan: Plan, microseconds: Sequence[float]) -> list[StepTime]:
    kinds = {layer.label: kind_of(layer) for layer, _ in plan.layers}
    return [
        StepTime(
            step.label,
            step.kernel.name,
            getattr(step.kernel, "family", "float"),
            kinds.get(step.label, ""),
            step.macs,
            taken,
        )
        for step, taken in zip(plan.steps, microseconds, strict=True)
    ]


def kind_of(layer: Layer) -> str:
    """Return what sort of layer it is, for tables: "stem 7x7 stride 2"."""
    _, height, width, _ = layer.y.layout.pixels
    if (height, width) == layer.kernel == (1, 1):
        return "linear"
    words = ["x".join(map(str, layer.kernel))]
    if layer.groups > 1:
        words.insert(0, "depthwise" if layer.in_channels == 1 else "grouped")
    elif layer.in_channels <= _STEM_CHANNELS:
        words.insert(0, "stem")
    if max(layer.stride) > 1:
        words.append(f"stride {max(layer.stride)}")
    return " ".join(words)


def _calls(graph: Graph, plan: Plan) -> list[Callable[[], Any]]:
    """Fill the plan and compile it; return calls of each step, of none, and of all of them."""
    inputs, outputs, workspace = fill_plan(graph, plan)
    module = emit_module(plan, inputs, outputs, workspace, ranged=True)
    content = compile_library(module, plan.target)
    parameters = pack_all(plan.recipes, plan.tensors, plan.parameter_bytes)
    threaded = b"__TVMBackend" in content
    library = Library(content, ENTRY, parameters, workspace, plan.threads, threaded)
    random = np.random.default_rng(0)
    tensors = [_noise(value, random) for value in [*inputs, *outputs]]
    count = len(plan.steps)
    ranges = [*((i, i + 1) for i in range(count)), (0, 0), (0, count)]
    library.run([np.array([0, count], np.int32), *tensors])  # fills the memory, wakes the threads
    entry, (_, *rest) = library.entry, library.tensors([np.zeros(2, np.int32), *tensors])
    bounds = [library.tensors([np.array(pair, np.int32)])[0] for pair in ranges]
    return [partial(entry, pair, *rest) for pair in bounds]


def _noise(value: Value, random: np.random.Generator) -> NDArray[Any]:
    """Return an array that fits: zeros may be quicker than real values."""
    layout = value.layout
    return random.random(layout.shape).astype(layout.dtype)


def _fastest(calls: list[Callable[[], Any]], rounds: int) -> list[int]:
    """Return the nanoseconds of each call's fastest round; the first two don't count."""
    clock = time.perf_counter_ns
    fastest = [1 << 62] * len(calls)
    for turn in range(rounds + 2):
        for i, call in enumerate(calls):
            start = clock()
            call()
            taken = clock() - start
            if turn > 1:
                fastest[i] = min(fastest[i], taken)
    return fastest

"""A layer's choices as a design space of MetaSchedule.

planish's kernels are finished code without blocks that a schedule could change; what can be chosen
are the knobs of their strategies. So a function of one block stands for the layer. A schedule of it
draws the number of a choice and notes it at the block, and the builder makes the real kernel that
the note names. Whatever walks through schedules then walks through choices.

One number is drawn, not one for each knob: a strategy offers a list of settings, not all
combinations, and a drawn setting that is not offered would be thrown away.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import tvm
from tvm import IRModule
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.mutator import PyMutator
from tvm.s_tir.schedule import Instruction, Schedule, Trace

from ..choice import Choice

_NOTE = "planish.choice"
_WORKLOAD = "planish.workload"
_BLOCK = "layer"

_STAND_IN = """
@T.prim_func(s_tir=True)
def main(y: T.Buffer((1,), "int32")):
    with T.sblock("layer"):
        T.reads()
        T.writes(y[0])
        y[0] = 0
"""


def stand_in(workload: str) -> IRModule:
    """Return the module that stands for a layer; unlike workloads have unlike modules."""
    function = tvm.script.from_source(_STAND_IN)
    named = function.with_attr("global_symbol", "main").with_attr(_WORKLOAD, workload)
    return IRModule({"main": named})


def design_space(choices: Sequence[Choice]) -> ms.space_generator.ScheduleFn:
    """Return the space of these choices."""
    count = len(choices)

    def draw(schedule: Schedule) -> None:
        number = schedule.sample_categorical(list(range(count)), [1.0 / count] * count)
        schedule.annotate(schedule.get_sblock(_BLOCK), _NOTE, number)

    mutators: Any = {Neighbour(choices): 1.0}
    return ms.space_generator.ScheduleFn(draw, sch_rules=[], postprocs=[], mutator_probs=mutators)


def noted(module: IRModule) -> tuple[str, int]:
    """Return the workload of a scheduled module, and the number of its choice."""
    schedule = Schedule(module)
    block: Any = schedule.get(schedule.get_sblock(_BLOCK))
    function: Any = module["main"]
    return str(function.attrs[_WORKLOAD]), int(block.annotations[_NOTE])


def with_choice(module: IRModule, space: Schedule, number: int) -> Schedule:
    """Return a schedule of a stand-in that notes this choice.

    Args:
        module: The stand-in.
        space: Any schedule of its design space.
        number: The choice.
    """
    trace = space.trace
    assert trace is not None
    schedule = Schedule(module)
    trace.with_decision(_draw(trace), number, True).apply_to_schedule(schedule, False)
    return schedule


def _draw(trace: Trace) -> Instruction:
    """Return the instruction that draws the choice."""
    return next(inst for inst in trace.insts if inst.kind.name == "SampleCategorical")


def neighbours(choices: Sequence[Choice], number: int) -> list[int]:
    """Return the choices that differ least from one: the same strategy, fewest other knobs."""
    me = choices[number]
    distance = {
        i: sum(me.knobs.get(k) != other.knobs.get(k) for k in {*me.knobs, *other.knobs})
        for i, other in enumerate(choices)
        if i != number and other.strategy == me.strategy
    }
    least = min(distance.values(), default=0)
    return [i for i, d in distance.items() if d == least]


@derived_object
class Neighbour(PyMutator):
    """Moves to a choice that differs in one knob; at times to any other."""

    def __init__(self, choices: Sequence[Choice], seed: int = 0) -> None:
        super().__init__()
        self._choices = choices
        self._random = random.Random(seed)

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        del context

    def apply(self, trace: Trace, _: int) -> Trace | None:
        """Return the trace with another choice, or None if there is no other."""
        if len(self._choices) < 2:
            return None
        draw = _draw(trace)
        drawn = trace.get_decision(draw)
        near = neighbours(self._choices, int(drawn)) if drawn is not None else []
        if not near or self._random.random() < 0.2:
            near = list(range(len(self._choices)))
        return trace.with_decision(draw, self._random.choice(near), True)

    def clone(self) -> Neighbour:  # type: ignore[override]
        """Return one with random numbers of its own."""
        return Neighbour(self._choices, self._random.randrange(1 << 30))

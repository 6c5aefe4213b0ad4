"""A kernel's independent loops spread over the threads of a GPU.

The kernels of `planish.backends.kernels` share an outermost loop of independent tasks between a
CPU's threads. A GPU has far more threads: the loops below it are taken too, as far as their bodies
are independent (`INDEPENDENT`), so that neighbouring threads read and write neighbouring values. A
thread computes one task; what stands between the loops, it computes for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from .lanes import one_lane

# Threads of a block: enough of them hide the time of a load, and every GPU has room for several.
BLOCK = 128
# How many nested loops of a family's kernels have independent bodies; 1 of others.
INDEPENDENT: dict[str, int] = {
    "map": 3,
    "two-operands": 3,
    "max-pool": 3,
    "average-pool": 3,
    "resize": 3,
    "gather": 2,
    "take": 3,
    "quantize-planes": 2,
}


def with_numbers(function: Any, numbers: Sequence[int | float]) -> Any:
    """Return a function of pointers alone: its scalars, the last parameters, become constants.

    The grid of a launch is then a constant, and no address needs a division by a variable.
    """
    pointers = len(function.params) - len(numbers)
    scalars = function.params[pointers:]
    known: Mapping[Any, Any] = {
        scalar: tvm.tirx.const(number, str(scalar.ty.dtype))
        for scalar, number in zip(scalars, numbers, strict=True)
    }
    body = tvm_ffi.structural_map(function.body, (tirx.Var, lambda v: known.get(v, v)))
    return tirx.PrimFunc(function.params[:pointers], body, attrs=function.attrs)


def is_threaded(function: Any) -> bool:
    """Whether a function says itself what each thread does."""
    found: list[Any] = []
    rules = [
        (tirx.AttrStmt, lambda s: found.append(s) if s.attr_key == "thread_extent" else None),
        (tirx.For, lambda s: found.append(s) if s.thread_binding is not None else None),
    ]
    tvm_ffi.structural_walk(function.body, rules)
    return bool(found)


def spread(function: Any, family: str) -> Any | None:
    """Return a function whose tasks are threads, or None if there is no task at all.

    Args:
        function: A kernel without scalars (`with_numbers`).
        family: Its name in `planish.backends.kernels.FAMILIES`.
    """
    declared, loops = _nest(one_lane(function.body), INDEPENDENT.get(family, 1))
    counts = [loop.count for loop in loops]
    tasks = prod(counts)
    if tasks == 0:
        return None
    block = min(BLOCK, -(-tasks // 32) * 32)
    grid = -(-tasks // block)
    block_index, thread_index = tirx.Var("block_index", "int32"), tirx.Var("thread_index", "int32")
    task = tirx.Var("task", "int32")
    inner: list[Any] = []
    for number, loop in enumerate(loops):
        inner += [*loop.before, tirx.Bind(loop.variable, _index(task, counts, number))]
    body: Any = tirx.SeqStmt([*inner, loops[-1].body])
    if tasks % block:
        body = tirx.IfThenElse(task < tasks, body, None)
    own = tirx.Bind(task, block_index * block + thread_index)
    body = tirx.SeqStmt([*declared, own, body])
    for variable, tag, extent in (
        (thread_index, "threadIdx.x", block),
        (block_index, "blockIdx.x", grid),
    ):
        size = tirx.IntImm("int32", extent)
        span = tvm.ir.Range(tirx.IntImm("int32", 0), size)
        axis = tirx.IterVar(span, variable, tirx.IterVar.ThreadIndex, tag)
        body = tirx.AttrStmt(axis, "thread_extent", size, body)
    return tirx.PrimFunc(function.params, body, attrs=function.attrs)


@dataclass(frozen=True)
class _Loop:
    """One loop of a nest: the statements before it, its variable, count and body."""

    before: Sequence[Any]
    variable: Any
    count: int
    body: Any


def _nest(body: Any, depth: int) -> tuple[Sequence[Any], list[_Loop]]:
    """Return what stands before a nest of loops, and the loops, outermost first."""
    loops: list[_Loop] = []
    for _ in range(depth):
        *before, last = _statements(body)
        assert isinstance(last, tirx.For), "a kernel ends in its loop of tasks"
        count: Any = tvm.sym.Analyzer().simplify(last.extent)
        loops.append(_Loop(before, last.loop_var, int(count), last.body))
        body = last.body
    declared = loops[0].before
    loops[0] = _Loop([], loops[0].variable, loops[0].count, loops[0].body)
    return declared, loops


def _statements(body: Any) -> list[Any]:
    """Return the statements of a body, sequences in it written out."""
    if not isinstance(body, tirx.SeqStmt):
        return [body]
    return [each for statement in body.seq for each in _statements(statement)]


def _index(task: Any, counts: Sequence[int], number: int) -> Any:
    """Return a loop's variable as a part of the task's number; the innermost loop runs fastest."""
    rest = prod(counts[number + 1 :])
    index = task if rest == 1 else task // rest
    return index if number == 0 else index % counts[number]

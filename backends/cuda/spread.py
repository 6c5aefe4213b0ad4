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
# The family of TVM's float functions, whose independent loops are those that are parallel.
FLOAT = "float"
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
# What each thread may say for itself.
_DECLARATIONS = (tirx.DeclBuffer, tirx.AllocBuffer, tirx.Bind)


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
        family: Its name in `planish.backends.kernels.FAMILIES`, or FLOAT.
    """
    body = one_lane(function.body)
    depth = _parallel(body) if family == FLOAT else INDEPENDENT.get(family, 1)
    declared, loops, body = _nest(body, depth)
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
        index = _index(task, counts, number).astype(str(loop.variable.ty.dtype))
        inner += [*loop.before, tirx.Bind(loop.variable, index)]
    body = tirx.SeqStmt([*inner, body])
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
    """One loop of a nest: the statements before it, its variable and count."""

    before: Sequence[Any]
    variable: Any
    count: int


def _parallel(body: Any) -> int:
    """Return how many nested loops are parallel, with nothing but declarations before each."""
    *before, last = statements(body)
    declared = all(isinstance(each, _DECLARATIONS) for each in before)
    if not declared or not isinstance(last, tirx.For) or last.kind != tirx.ForKind.PARALLEL:
        return 0
    return 1 + _parallel(last.body)


def _nest(body: Any, depth: int) -> tuple[Sequence[Any], list[_Loop], Any]:
    """Return what stands before a nest of loops, the loops, outermost first, and their body."""
    declared: Sequence[Any] = []  # without loops, one thread does all
    loops: list[_Loop] = []
    for number in range(depth):
        *before, last = statements(body)
        assert isinstance(last, tirx.For), "a kernel ends in its loop of tasks"
        if number == 0:
            declared, before = before, []
        count: Any = tvm.sym.Analyzer().simplify(last.extent)
        loops.append(_Loop(before, last.loop_var, int(count)))
        body = last.body
    return declared, loops, body


def statements(body: Any) -> list[Any]:
    """Return the statements of a body, sequences in it written out."""
    if not isinstance(body, tirx.SeqStmt):
        return [body]
    return [each for statement in body.seq for each in statements(statement)]


def _index(task: Any, counts: Sequence[int], number: int) -> Any:
    """Return a loop's variable as a part of the task's number; the innermost loop runs fastest."""
    rest = prod(counts[number + 1 :])
    index = task if rest == 1 else task // rest
    return index if number == 0 else index % counts[number]

"""Float functions of TVM as kernels of a GPU: one for each nest of loops.

A function of Relax computes its result in blocks, each a nest of loops over the entries of a tensor
and, inside, over what is summed for an entry. `share_tasks` marks the loops over entries, which are
independent: `spread` gives them to threads. `split_nests` makes each nest a function of its own, as
a launch is the only point where all threads have done what others read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import TensorLoad
from tvm.tirx import IterVar

from ..floats.exact import decompose
from .functions import with_functions
from .source import cuda_source
from .spread import FLOAT, spread, statements

# Fewer threads than this leave a GPU idle; sums of at least so many terms are then cut into parts.
_FEW, _LONG = 4096, 512
# Parts of a sum, and terms of a part: at most, and at least.
_MOST_PARTS, _LEAST_TERMS = 256, 16
# How often a block may read another's entry that it computes itself.
_MOST_READS = 4
# Bytes of a thread's own arrays: what all resident threads have of them is taken from the memory.
_MOST_LOCAL = 4096


def share_tasks(module: Any) -> Any:
    """Return a module with a function "main" of blocks, independent loops outermost and parallel.

    A block that reads another's entries one by one takes them into its own loops.
    """
    schedule = s_tir.Schedule(module)
    for block in reversed(schedule.get_child_blocks(schedule.get_sblock("root"))):
        _join(schedule, block)
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        if not schedule.get_loops(block):  # TVM's `rfactor` fails where one stands beside its block
            schedule.add_unit_loop(block)
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        try:
            _share(schedule, block)
        except s_tir.ScheduleError:  # what TVM can't prove to be independent stays in one thread
            continue
    return schedule.mod


def _kinds(schedule: Any, block: Any) -> set[int]:
    return {variable.iter_type for variable in schedule.get(block).iter_vars}


def _join(schedule: Any, block: Any) -> None:
    """Compute a block's entries where the only other block that reads them does.

    Not inside of a sum, which needs an entry many times. Blocks are looked at last first: what a
    reader took in reads more, so that few reads bound what is computed twice.
    """
    readers = schedule.get_consumers(block)
    if len(readers) != 1 or _kinds(schedule, readers[0]) != {IterVar.DataPar}:
        return
    if _reads(schedule.get(readers[0]), schedule.get(block)) > _MOST_READS:
        return
    try:
        schedule.compute_inline(block)
    except s_tir.ScheduleError:  # it sums itself, or writes a result of the function
        return


def _reads(reader: Any, block: Any) -> int:
    """Return how often a block reads, for an entry, what another one writes."""
    written = [region.source for region in block.writes]
    found: list[Any] = []
    tvm_ffi.structural_walk(reader.body, (TensorLoad, lambda load: found.append(load.source)))
    return sum(source in written for source in found)


def _share(schedule: Any, block: Any) -> None:
    variables, loops = schedule.get(block).iter_vars, schedule.get_loops(block)
    if len(variables) != len(loops):
        return
    pairs = list(zip(variables, loops, strict=True))
    tasks = [loop for variable, loop in pairs if variable.iter_type == IterVar.DataPar]
    summed = [loop for variable, loop in pairs if variable.iter_type == IterVar.CommReduce]
    if len(tasks) + len(summed) != len(loops):
        return
    if not summed:
        _mark(schedule, tasks)
        return
    schedule.reorder(*tasks, *summed)
    parts = _parts(prod(_extents(schedule, tasks)), prod(_extents(schedule, summed)))
    if parts > 1:
        _cut(schedule, block, summed, parts)
    else:
        _mark(schedule, tasks)
        decompose(schedule, block, summed[0])


def _mark(schedule: Any, tasks: Sequence[Any]) -> None:
    for loop in tasks:
        schedule.parallel(loop)


def _extents(schedule: Any, loops: Sequence[Any]) -> list[int]:
    return [int(schedule.get(loop).extent) for loop in loops]


def _parts(tasks: int, terms: int) -> int:
    """Return into how many parts each of these sums is cut; 1: it stays whole."""
    if tasks >= _FEW or terms < _LONG:
        return 1
    most = min(_MOST_PARTS, terms // _LEAST_TERMS)
    return max(n for n in range(1, most + 1) if terms % n == 0)


def _cut(schedule: Any, block: Any, summed: Sequence[Any], parts: int) -> None:
    """Sum in parts, a thread each, and then the parts. Neighbouring threads add neighbours."""
    whole = schedule.fuse(*summed) if len(summed) > 1 else summed[0]
    _, part = schedule.split(whole, [None, parts])
    partial = schedule.rfactor(part, 0)
    *own, term, number = schedule.get_loops(partial)
    schedule.reorder(*own, number, term)
    _mark(schedule, [*own, number])
    decompose(schedule, partial, term)
    *own, last = schedule.get_loops(block)
    _mark(schedule, own)
    decompose(schedule, block, last)


@dataclass(frozen=True)
class Nest:
    """One launch of a function.

    Attributes:
        function: On raw pointers; says what each thread does.
        operands: Which of the whole function's pointers it takes.
    """

    function: Any
    operands: tuple[int, ...]


def split_nests(function: Any) -> list[Nest]:
    """Return a function on raw pointers as launches that follow each other.

    Raises:
        NotImplementedError: It computes what a GPU has no function for, or needs too much memory
            for each thread.
        RuntimeError: TVM can't say it in CUDA C.
    """
    function = with_functions(function)
    declared: list[Any] = []
    nests: list[Nest] = []
    for statement in statements(function.body):
        if isinstance(statement, tirx.DeclBuffer | tirx.Bind):
            declared.append(statement)
            continue
        _check_local(statement)
        operands, body = _with_declared(function, declared, statement)
        pointers = [function.params[i] for i in operands]
        threaded = spread(tirx.PrimFunc(pointers, body, attrs=function.attrs), FLOAT)
        if threaded is not None:
            nests.append(Nest(threaded, operands))
    if nests:  # what can't be printed is found here, where the operator is known
        cuda_source({f"nest_{i}": nest.function for i, nest in enumerate(nests)}, "sm_80")
    return nests


def _with_declared(
    function: Any, declared: Sequence[Any], statement: Any
) -> tuple[tuple[int, ...], Any]:
    """Return which pointers a statement needs, and the statement behind the declarations it needs.

    Args:
        function: Has the pointers.
        declared: What the function declares before the statement.
        statement: One of the function's.
    """
    needed = [statement]
    seen = _seen(statement)
    for declaration in reversed(declared):
        what = declaration.buffer if isinstance(declaration, tirx.DeclBuffer) else declaration.var
        if what in seen:
            needed.insert(0, declaration)
            seen |= _seen(declaration)
    operands = tuple(i for i, pointer in enumerate(function.params) if pointer in seen)
    return operands, tirx.SeqStmt(needed)


def _seen(statement: Any) -> set[Any]:
    """Return the variables and buffers that a statement names."""
    found: set[Any] = set()
    rules = [
        (tirx.Var, found.add),
        (TensorLoad, lambda load: found.add(load.source)),
        (tirx.BufferStore, lambda store: found.add(store.buffer)),
    ]
    tvm_ffi.structural_walk(statement, rules)
    return found


def _check_local(statement: Any) -> None:
    sizes: list[int] = []

    def note(allocation: Any) -> None:
        buffer = allocation.buffer.ty
        size = prod(int(extent) for extent in buffer.shape)
        sizes.append(size * tvm_ffi.dtype(str(buffer.dtype)).itemsize)

    tvm_ffi.structural_walk(statement, (tirx.AllocBuffer, note))
    if sum(sizes) > _MOST_LOCAL:
        raise NotImplementedError(f"each thread of a GPU would need {sum(sizes)} bytes")

"""TensorIR functions of Relax as kernels of the plan.

On a processor each is one kernel, whose innermost loops LLVM makes vectors of. On a GPU each nest
of loops is one (see `cuda.floats`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import tvm
import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.tirx import IterVar
from tvm.tirx.buffer import buffer_data_pointer_type

from ..cuda.floats import share_tasks, split_nests
from ..cuda.spread import FLOAT
from ..kernels import close_kernel
from ..target import Target
from .converters import WITHOUT_BLOCKS
from .exact import decompose, with_infinite_firsts, with_nan_kept


@dataclass(frozen=True)
class FloatKernel:
    """A TensorIR function from Relax, or a part of one; equal ones are compiled once.

    Attributes:
        made: The function, on raw pointers.
        name: TVM's name of what it computes: "fused_conv2d_add".
        key: Equal for equal functions.
    """

    made: Any = field(compare=False)
    name: str
    key: tuple[str, int]
    family: ClassVar[str] = FLOAT

    def build(self) -> Any:
        """Return the kernel as a function that the entry of a CPU's library calls."""
        return close_kernel(self.made, self.name)

    def function(self) -> Any:
        """Return the function itself."""
        return self.made


@dataclass(frozen=True)
class FloatFunction:
    """How a function of Relax is computed.

    Attributes:
        calls: Kernels in order, and which of the function's pointers each takes: of what it reads,
            then what it writes, then its temporaries.
        temporaries: Shape and dtype of the memory that it needs for itself.
    """

    calls: tuple[tuple[FloatKernel, tuple[int, ...]], ...]
    temporaries: tuple[tuple[tuple[int, ...], str], ...]


def kernels_of(function: Any, name: str, target: Target) -> FloatFunction:
    """Return a function as kernels.

    Args:
        function: A tvm.tirx.PrimFunc on buffers.
        name: TVM's name of it.
        target: What to compile for.

    Raises:
        NotImplementedError: A GPU can't compute it.
    """
    on_gpu = target.capability is not None
    if not (function.attrs and WITHOUT_BLOCKS in function.attrs):
        function = _lower_blocks(function, share_tasks if on_gpu else _vectorizable)
    if not on_gpu:
        function = with_nan_kept(function)
        whole, temporaries = _with_pointers(_in_order(function))
        everything = tuple(range(len(whole.params)))
        return FloatFunction(((_kernel(whole, name), everything),), tuple(temporaries))
    whole, temporaries = _with_pointers(function)
    calls = [(_kernel(nest.function, name), nest.operands) for nest in split_nests(whole)]
    return FloatFunction(tuple(calls), tuple(temporaries))


def _kernel(function: Any, name: str) -> FloatKernel:
    return FloatKernel(function, name, (name, int(tvm_ffi.structural_hash(function))))


def _is_parallel(loop: Any) -> bool:
    return loop.kind == tirx.ForKind.PARALLEL


def _in_order(function: Any) -> Any:
    """Return a function whose loops are serial: on a processor, a step is one thread's."""

    def serial(loop: Any) -> Any:
        if not _is_parallel(loop):
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)

    body = tvm_ffi.structural_map(function.body, (tirx.For, serial))
    return tirx.PrimFunc(function.params, body, attrs=function.attrs)


def _vectorizable(module: Any) -> Any:
    """Return a module whose sums have an output axis innermost, so that LLVM makes vectors of it.

    TVM leaves the summed axes innermost, and LLVM may not reorder a float sum. Each output is still
    summed in the same order.
    """
    try:
        return _reordered(s_tir.Schedule(module))
    except s_tir.ScheduleError:  # a sum of a shape that can't be reordered stays as TVM made it
        return module


def _reordered(schedule: Any) -> Any:
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        variables, loops = schedule.get(block).iter_vars, schedule.get_loops(block)
        if len(variables) != len(loops):
            continue
        pairs = list(zip(variables, loops, strict=True))
        summed = [loop for variable, loop in pairs if variable.iter_type == IterVar.CommReduce]
        outer = [
            loop
            for variable, loop in pairs
            if variable.iter_type == IterVar.DataPar and int(schedule.get(loop).extent) > 1
        ]
        if summed and outer:
            schedule.reorder(*summed, outer[-1])
            decompose(schedule, block, summed[0])
    return schedule.mod


def _lower_blocks(function: Any, arrange: Callable[[Any], Any]) -> Any:
    """Return a function without blocks: plain loops over flat buffers.

    Args:
        function: Of blocks.
        arrange: Gives the loops of a module's function "main" their order.
    """
    module = arrange(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}))
    passes = [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
    ]
    module["main"] = with_infinite_firsts(module["main"])
    lowered = ir.transform.Sequential(passes)(module)["main"]
    return lowered.without_attr("global_symbol")


def _with_pointers(function: Any) -> tuple[Any, list[tuple[tuple[int, ...], str]]]:
    """Return a function on raw pointers, and the temporaries that it takes as its last ones.

    Its own allocations become memory of the workspace: nothing is allocated while a network runs.
    Those inside of a parallel loop stay there: each task has its own.
    """
    temporaries: list[tuple[tuple[int, ...], str]] = []
    extra: list[Any] = []
    of_tasks = _allocated_by_tasks(function.body)

    def take(allocation: Any) -> Any:
        buffer = allocation.buffer
        if buffer in of_tasks:
            return allocation
        shape = tuple(int(size) for size in buffer.ty.shape)
        temporaries.append((shape, str(buffer.ty.dtype)))
        extra.append(tirx.Var(f"temporary{len(extra)}", buffer_data_pointer_type(buffer)))
        return tirx.DeclBuffer(buffer, data=extra[-1])

    body = tvm_ffi.structural_map(function.body, (tirx.AllocBuffer, take))
    pointers = [tirx.Var(f"{b.name}_data", buffer_data_pointer_type(b)) for b in function.params]
    declared = [
        tirx.DeclBuffer(buffer, data=pointer)
        for buffer, pointer in zip(function.params, pointers, strict=True)
    ]
    body = tirx.SeqStmt([*declared, body])
    return tirx.PrimFunc([*pointers, *extra], body, attrs=function.attrs), temporaries


def _allocated_by_tasks(body: Any) -> set[Any]:
    """Return the buffers that are allocated inside of a parallel loop."""
    found: set[Any] = set()

    def look(loop: Any) -> None:
        if _is_parallel(loop):
            allocations = (tirx.AllocBuffer, lambda a: found.add(a.buffer))
            tvm_ffi.structural_walk(loop.body, allocations)

    tvm_ffi.structural_walk(body, (tirx.For, look))
    return found

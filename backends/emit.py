"""Plan in, TVM module out: the kernels, and one entry function that calls them in order.

The entry takes the input tensors, the output tensors, the parameter memory and the workspace; it
returns 0, or an error code of TVM's thread pool. Every address is a constant offset.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import tirx

from .kernels import Kernel
from .plan import Parameter, Plan, Pointer, Step
from .value import Value

ENTRY = "planish_main"


def emit_module(
    plan: Plan,
    inputs: list[Value],
    outputs: list[Value],
    workspace: int,
    *,
    ranged: bool = False,
    copied: bool = False,
) -> Any:
    """Return the tvm.IRModule of a plan.

    Args:
        plan: Values placed; for a processor (for a GPU see `cuda.program`).
        inputs: The network's inputs, in order.
        outputs: The network's outputs, in order.
        workspace: Bytes of the workspace.
        ranged: For profiles: the entry takes a tensor int32 [first, end] before all others, and
            runs only the steps from the one to before the other.
        copied: For tuning: the parameter memory holds several copies of the parameters, evenly far
            from each other (`copy_bytes`). The entry takes a tensor int32 [first, end] before all
            others, and runs all steps with each copy from the one to before the other.
    """
    functions: dict[Any, Any] = {}
    known: dict[Any, Any] = {}
    names: set[str] = set()

    def function_of(step: Step) -> Any:
        key = step.kernel if isinstance(step.kernel, Kernel) else step.kernel.key
        if key not in known:
            name = _unique(step.kernel.name, names)
            known[key] = tvm.ir.GlobalVar(name)
            functions[known[key]] = step.kernel.build()
        return known[key]

    copy = tirx.Var("copy", "int32") if copied else None
    buffers = _Buffers(inputs, outputs, plan.parameter_bytes, workspace, copy)
    calls: list[Any] = []
    status = tirx.decl_buffer((1,), "int32", name="status")
    for step in plan.steps:
        arguments = [buffers.address(pointer) for pointer in step.pointers]
        arguments += [_scalar(scalar) for scalar in step.scalars]
        call = tvm.ir.Call(function_of(step), arguments, ret_ty="int32")
        calls.append(_checked(call, status) if plan.threads > 1 else tirx.Evaluate(call))
    bounds = [tirx.decl_buffer((2,), "int32", name="range")] if ranged or copied else []
    if ranged:
        calls = [_in_range(call, i, *bounds) for i, call in enumerate(calls)]
    if copy is not None:
        first, end = _ends(*bounds)
        steps = tirx.SeqStmt(calls) if len(calls) > 1 else calls[0]
        calls = [tirx.For(copy, first, end - first, tirx.ForKind.SERIAL, steps)]
    zero = tirx.IntImm("int32", 0)
    body = tirx.SeqStmt(
        [
            tirx.AllocBuffer(status),
            tirx.BufferStore(status, zero, [zero]),
            *calls,
            tirx.stmt.Return(tirx.BufferLoad(status, [zero])),
        ]
    )
    entry = tirx.PrimFunc([*bounds, *buffers.all], body, ret_type=tvm.ir.PrimType("int32"))
    entry = entry.with_attr("global_symbol", ENTRY)
    return tvm.IRModule({**functions, tvm.ir.GlobalVar(ENTRY): entry})


def copy_bytes(plan: Plan) -> int:
    """Return how far copies of the parameters are from each other: whole cache lines."""
    return -(-plan.parameter_bytes // 64) * 64


def _in_range(call: Any, index: int, bounds: Any) -> Any:
    """Return a call that is made where `first <= index < end`."""
    number = tirx.IntImm("int32", index)
    first, end = _ends(bounds)
    return tirx.IfThenElse(tirx.all(first <= number, number < end), call, None)


def _ends(bounds: Any) -> list[Any]:
    """Return both numbers of a range."""
    return [tirx.BufferLoad(bounds, [tirx.IntImm("int32", i)]) for i in range(2)]


def _unique(name: str, taken: set[str]) -> str:
    """Return a symbol that no other kernel has."""
    unique, count = name, 0
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    taken.add(unique)
    return unique


def _checked(call: Any, status: Any) -> Any:
    """Return a call whose error code is kept."""
    zero = tirx.IntImm("int32", 0)
    kept = tirx.op.bitwise_or(tirx.BufferLoad(status, [zero]), call)
    return tirx.BufferStore(status, kept, [zero])


def _scalar(value: int | float) -> Any:
    if isinstance(value, float):
        return tirx.FloatImm("float32", value)
    return tirx.IntImm("int32", int(value))


class _Buffers:
    """The entry's tensor arguments, and addresses in them."""

    def __init__(
        self,
        inputs: list[Value],
        outputs: list[Value],
        parameters: int,
        workspace: int,
        copy: Any = None,
    ) -> None:
        self._inputs = [_tensor(value, f"input{i}") for i, value in enumerate(inputs)]
        self._outputs = [_tensor(value, f"output{i}") for i, value in enumerate(outputs)]
        self._copy = copy
        self._copy_bytes = -(-parameters // 64) * 64
        size = tirx.Var("copied_bytes", "int32") if copy is not None else parameters
        self._parameters = tirx.decl_buffer((size,), "uint8", name="parameters")
        self._workspace = tirx.decl_buffer((workspace,), "uint8", name="workspace")

    @property
    def all(self) -> list[Any]:
        """All of them, in the order of the call."""
        return [*self._inputs, *self._outputs, self._parameters, self._workspace]

    def address(self, pointer: Pointer | Parameter) -> Any:
        """Return the address that a pointer means, as an expression."""
        if isinstance(pointer, Parameter):
            return self._parameter(pointer.offset)
        value = pointer.value.owner
        if value.place in ("workspace", "parameters"):
            size = np.dtype(value.layout.dtype).itemsize
            offset = value.offset + pointer.elements * size
            stored = value.place == "parameters"
            return self._parameter(offset) if stored else _address(self._workspace, offset)
        buffer = (self._inputs if value.place == "input" else self._outputs)[value.index]
        assert pointer.elements == 0, "the user's tensors are dense"
        return buffer.data

    def _parameter(self, offset: int) -> Any:
        """Return an address in the parameter memory, or in the running copy's part of it."""
        index = tirx.IntImm("int32", offset)
        if self._copy is not None:
            index = self._copy * tirx.IntImm("int32", self._copy_bytes) + index
        return tirx.op.address_of(tirx.BufferLoad(self._parameters, [index]))


def _tensor(value: Value, name: str) -> Any:
    dtype = "int8" if value.layout.dtype == "bool" else value.layout.dtype
    # TVM would take a user's memory to begin on a cache line, and LLVM would rely on it.
    alignment = np.dtype(dtype).itemsize
    return tirx.decl_buffer(value.layout.shape, dtype, name=name, data_alignment=alignment)


def _address(buffer: Any, offset: int) -> Any:
    return tirx.op.address_of(tirx.BufferLoad(buffer, [tirx.IntImm("int32", offset)]))

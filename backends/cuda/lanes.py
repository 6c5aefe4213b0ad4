"""One lane at a time: a kernel's vectors written out as scalars, as CUDA's threads compute.

The kernels of `planish.backends.kernels` say vectors of `lanes` values. A GPU has vectors only for
loads and stores, so each statement on a vector becomes one a lane; what the lanes share is computed
once by the compiler. LLVM's intrinsics become the device functions of `device.h`, each correctly
rounded, and buffers that a CPU has on its stack become a thread's registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, TensorLoad

# LLVM's name to ours; see device.h.
_FUNCTIONS = {
    "llvm.lrint": "planish_nearest",
    "llvm.rint": "planish_round",
    "llvm.sqrt": "planish_sqrt",
}


def one_lane(body: Any) -> Any:
    """Return a kernel's body without vectors.

    Args:
        body: A tirx statement, as the builders of `planish.backends.kernels` make it.
    """
    return _Scalars().statement(body)


def _lanes(value: Any) -> int:
    """Return a value's lanes; those of a pointer are 1."""
    kind = getattr(value.ty, "dtype", None)
    return 1 if kind is None else int(tvm_ffi.dtype(str(kind)).lanes)


def _scalar_type(value: Any) -> str:
    return str(value.ty.dtype).partition("x")[0]


def _name(call: Any) -> str:
    return getattr(call.op, "name", "")


class _Scalars:
    """Rewrites statements; remembers vectors that were given a name, and buffers' new places."""

    def __init__(self) -> None:
        self._vectors: dict[Any, Any] = {}
        self._buffers: dict[Any, Any] = {}
        self._rules: dict[type, Callable[[Any], Any]] = {
            tirx.SeqStmt: lambda s: tirx.SeqStmt([self.statement(each) for each in s.seq]),
            tirx.For: self._loop,
            tirx.IfThenElse: self._branch,
            tirx.AttrStmt: lambda s: tirx.AttrStmt(
                s.node, s.attr_key, s.value, self.statement(s.body)
            ),
            tirx.AllocBuffer: self._allocate,
            tirx.DeclBuffer: lambda s: s,
            tirx.Bind: self._bind,
            tirx.BufferStore: self._store,
            tirx.Evaluate: lambda s: tirx.Evaluate(self.value(s.value)),
        }

    def statement(self, statement: Any) -> Any:
        """Return a statement without vectors."""
        return self._rules[type(statement)](statement)

    def _loop(self, loop: Any) -> Any:
        return tirx.For(
            loop.loop_var,
            self.value(loop.min),
            self.value(loop.extent),
            loop.kind,
            self.statement(loop.body),
        )

    def _branch(self, branch: Any) -> Any:
        other = branch.else_case
        return tirx.IfThenElse(
            self.value(branch.condition),
            self.statement(branch.then_case),
            None if other is None else self.statement(other),
        )

    def _allocate(self, allocation: Any) -> Any:
        """A thread's own memory; with constant indices it becomes registers."""
        buffer = allocation.buffer
        shape, dtype = buffer.ty.shape, buffer.ty.dtype
        mine = tirx.decl_buffer(shape, dtype, name=buffer.name, scope="local")
        self._buffers[buffer] = mine
        return tirx.AllocBuffer(mine)

    def _bind(self, bind: Any) -> Any:
        if _lanes(bind.var) == 1:
            return tirx.Bind(bind.var, self.value(bind.value))
        self._vectors[bind.var] = bind.value
        return tirx.Evaluate(tirx.IntImm("int32", 0))

    def _store(self, store: Any) -> Any:
        buffer = self._buffers.get(store.buffer, store.buffer)
        count = _lanes(store.indices[-1]) if store.indices else 1
        if count == 1:
            indices = [self.value(each) for each in store.indices]
            return tirx.BufferStore(buffer, self.value(store.value), indices)
        (index,) = store.indices
        stores: list[Any] = [
            tirx.BufferStore(buffer, self.lane(store.value, i), [self.lane(index, i)])
            for i in range(count)
        ]
        return tirx.SeqStmt(stores)

    def value(self, scalar: Any) -> Any:
        """Return a scalar expression with its intrinsics and buffers replaced."""
        if isinstance(scalar, int):
            return scalar
        rules = [(Call, self._call), (TensorLoad, self._load)]
        return tvm_ffi.structural_map(scalar, rules)

    def _load(self, load: Any) -> Any:
        if load.source not in self._buffers:
            return load
        return tirx.BufferLoad(self._buffers[load.source], list(load.indices))

    def _call(self, call: Any) -> Any:
        if _name(call) != "tirx.call_llvm_pure_intrin" or _lanes(call) > 1:
            return call
        found = tvm.target.codegen.llvm_get_intrinsic_name(int(call.args[0]))
        return tirx.call_pure_extern(_scalar_type(call), _FUNCTIONS[found], *call.args[1:])

    def lane(self, vector: Any, number: int) -> Any:
        """Return one lane of a vector expression."""
        if _lanes(vector) == 1:
            return self.value(vector)
        if isinstance(vector, tirx.Ramp):
            return self.value(vector.base) + self.value(vector.stride) * number
        if isinstance(vector, tirx.Broadcast):
            return self.value(vector.value)
        if isinstance(vector, tirx.Var):
            return self.lane(self._vectors[vector], number)
        if isinstance(vector, tirx.Shuffle):
            chosen: Any = vector.indices[number]
            return self._picked(vector, int(chosen))
        if isinstance(vector, TensorLoad):
            source = self._buffers.get(vector.source, vector.source)
            return tirx.BufferLoad(source, [self.lane(vector.indices[0], number)])
        if isinstance(vector, tirx.Cast):
            return tirx.Cast(_scalar_type(vector), self.lane(vector.value, number))
        if isinstance(vector, Call):
            return self._lane_of_call(vector, number)
        operator: Any = type(vector)  # an addition, a maximum, ...
        return operator(self.lane(vector.a, number), self.lane(vector.b, number))

    def _picked(self, shuffle: Any, number: int) -> Any:
        for vector in shuffle.vectors:
            if number < _lanes(vector):
                return self.lane(vector, number)
            number -= _lanes(vector)
        raise IndexError(f"a shuffle has no lane {number}")

    def _lane_of_call(self, call: Any, number: int) -> Any:
        arguments = [self.lane(argument, number) for argument in call.args[1:]]
        if _name(call) == "tirx.call_llvm_pure_intrin":
            found = tvm.target.codegen.llvm_get_intrinsic_name(int(call.args[0]))
            return tirx.call_pure_extern(_scalar_type(call), _FUNCTIONS[found], *arguments)
        return tirx.call_pure_extern(_scalar_type(call), call.args[0].value, *arguments)

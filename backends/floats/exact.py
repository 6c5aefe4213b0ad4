"""Float arithmetic as IEEE 754 has it, where TVM would take it for arithmetic of integers.

TVM's simplifier knows one kind of numbers: of `not (a < b)` it makes `b <= a`, of `a == a` true, of
`(a + b) - a` it makes b. With a NaN, an infinity or a rounding none of it holds. So floats are
compared, subtracted and chosen from in ways that it leaves alone; what compilers make of them is
the same instructions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import s_tir, tirx

# Marks a block that a sum's first value was moved to.
_FIRST = "planish.first"


def with_exact_floats(module: Any) -> Any:
    """Return a module of Relax whose functions compare and subtract floats out of TVM's sight."""
    kinds = (tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ, tirx.NE)
    rules = [*((kind, _compared) for kind in kinds), (tirx.Sub, _subtracted)]
    return tvm.IRModule(
        {
            name: _mapped(function, rules) if isinstance(function, tirx.PrimFunc) else function
            for name, function in module.functions.items()
        },
        attrs=module.attrs,
    )


def with_nan_kept(function: Any) -> Any:
    """Return a function whose maxima and minima are NaN if one side is.

    For a processor. On a GPU the functions of `floats.h` have the same meaning.
    """
    rules = [
        (tirx.Max, lambda e: _chosen(e, tirx.GT)),
        (tirx.Min, lambda e: _chosen(e, tirx.LT)),
    ]
    return _mapped(function, rules)


def decompose(schedule: Any, block: Any, loop: Any) -> None:
    """Give a reduction its first value in a block of its own, before a loop."""
    schedule.annotate(schedule.decompose_reduction(block, loop), _FIRST, True)


def with_infinite_firsts(function: Any) -> Any:
    """Return a function of blocks whose maxima start at -inf, and minima at inf.

    TVM starts at the largest finite number, and cuts a maximum into parts only if it does: this
    comes after its schedules.
    """
    return _mapped(function, [(s_tir.SBlock, _started)])


def _mapped(function: Any, rules: list[Any]) -> Any:
    body = tvm_ffi.structural_map(function.body, rules)
    return tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)


def _is_float(expression: Any) -> bool:
    return str(expression.ty.dtype).startswith("float")


def _hidden(truth: Any) -> Any:
    """The same truth by way of a number, which TVM doesn't look through."""
    return tirx.Cast("bool", tirx.Cast("int8", truth))


def _compared(expression: Any) -> Any:
    kind, a, b = type(expression), expression.a, expression.b
    if str(a.ty.dtype) == "bool":  # for LLVM TVM compares them as floats, which is an error
        return kind(tirx.Cast("int8", a), tirx.Cast("int8", b))
    if not _is_float(a):
        return expression
    if kind not in (tirx.EQ, tirx.NE):
        return _hidden(expression)
    equal = tirx.And(_hidden(tirx.LE(a, b)), _hidden(tirx.LE(b, a)))
    # LLVM would be asked for "ordered and unlike", which a NaN is not.
    return equal if kind is tirx.EQ else tirx.Not(equal)


def _subtracted(expression: Any) -> Any:
    """Return a - b as a + b * -1, the same number."""
    a, b = expression.a, expression.b
    if not _is_float(expression) or isinstance(a, tirx.FloatImm):
        return expression
    return tirx.Add(a, b * tirx.FloatImm(str(b.ty.dtype), -1.0))


def _chosen(expression: Any, before: Any) -> Any:
    if not _is_float(expression):
        return expression
    # Each is named once, else a maximum of maxima would be written many times over.
    a, b = (tirx.Var(name, expression.ty) for name in ("a", "b"))
    first = tirx.Or(_hidden(before(a, b)), tirx.isnan(a))
    chosen = tirx.Select(first, a, b)
    return tirx.Let(a, expression.a, tirx.Let(b, expression.b, chosen))


def _started(block: Any) -> Any:
    first = _FIRST in block.annotations
    if not first and block.init is None:
        return block
    return s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        _without_bounds(block.body) if first else block.body,
        _without_bounds(block.init) if block.init is not None else None,
        block.alloc_buffers,
        block.match_buffers,
        {name: value for name, value in block.annotations.items() if name != _FIRST},
    )


def _without_bounds(statement: Any) -> Any:
    return tvm_ffi.structural_map(statement, (tirx.FloatImm, _unbounded))


def _unbounded(constant: Any) -> Any:
    dtype = str(constant.ty.dtype)
    if abs(constant.value) != float(np.finfo(dtype).max):
        return constant
    return tirx.FloatImm(dtype, math.copysign(math.inf, constant.value))

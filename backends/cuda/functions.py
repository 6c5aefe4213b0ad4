"""The arithmetic of float functions as device functions: what TVM would spell in its own way.

TVM's code generator takes CUDA's fast approximations for exp, log, sin and others, and fmax for a
maximum, which treats a NaN in another way than a processor's kernels do. Here every function of
real numbers becomes one of `floats.h`, in the precision of its operands, and what is not known is
an error.
"""

from __future__ import annotations

import struct
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Call

# TVM's name to ours in floats.h. What they take and return has one dtype.
_SAME = (
    *("exp", "exp2", "exp10", "log", "log10", "log1p", "pow", "sqrt", "rsqrt", "sigmoid", "erf"),
    *("tanh", "sinh", "cosh", "asinh", "acosh", "atanh", "sin", "cos", "tan", "asin", "acos"),
    *("atan", "atan2", "fabs", "floor", "trunc", "fmod", "hypot", "copysign"),
)
FUNCTIONS = {
    **{f"tirx.{name}": f"planish_{name}" for name in _SAME},
    "prim.log2": "planish_log2",
    "prim.ceil": "planish_ceil",
    "tirx.nearbyint": "planish_nearest_even",
    "tirx.round": "planish_nearest_even",  # as LLVM's code has it
}
# What the code generator spells as C does.
_PLAIN = frozenset(
    {
        *("prim.if_then_else", "prim.likely", "tirx.reinterpret", "tirx.isnan", "tirx.isinf"),
        *("tirx.isfinite", "tirx.buffer_data", "tirx.call_pure_extern"),
    }
)
_DTYPES = frozenset(
    {
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    }
)


def with_functions(function: Any) -> Any:
    """Return a function whose arithmetic is that of `floats.h`.

    Raises:
        NotImplementedError: It computes what a GPU's kernels have no function or type for.
    """
    # What is lacking is noted: no error may leave a function that TVM calls.
    lacking: list[str] = []
    rules = [
        (Call, lambda call: _call(call, lacking)),
        (tirx.Max, lambda e: _chosen(e, "planish_larger")),
        (tirx.Min, lambda e: _chosen(e, "planish_smaller")),
        (tirx.FloatImm, _exact),
        (tirx.Cast, lambda e: _typed(e, e.ty.dtype, lacking)),
        (tirx.AllocBuffer, lambda a: _typed(a, a.buffer.ty.dtype, lacking)),
    ]
    for pointer in function.params:
        _typed(pointer, pointer.ty.element_type.dtype, lacking)
    body = tvm_ffi.structural_map(function.body, rules)
    if lacking:
        raise NotImplementedError(f"there is no {lacking[0]} on a GPU")
    return tirx.PrimFunc(function.params, body, attrs=function.attrs)


def _call(call: Any, lacking: list[str]) -> Any:
    name = getattr(call.op, "name", str(call.op))
    if name in _PLAIN:
        return call
    dtype = str(getattr(call.ty, "dtype", ""))
    if name in FUNCTIONS and dtype.startswith("float"):
        return _in_full(FUNCTIONS[name], dtype, list(call.args))
    lacking.append(f"{name} of {dtype}" if name in FUNCTIONS else name)
    return call


def _chosen(expression: Any, name: str) -> Any:
    """A maximum of reals: TVM's LLVM compares and selects, CUDA's `max` has rules for NaN."""
    dtype = str(expression.ty.dtype)
    if not dtype.startswith("float"):
        return expression
    return _in_full(name, dtype, [expression.a, expression.b])


def _in_full(name: str, dtype: str, operands: list[Any]) -> Any:
    """Call a function; halves are computed in float32 and rounded once more."""
    if dtype != "float16":
        return tirx.call_pure_extern(dtype, name, *operands)
    wide = [tirx.Cast("float32", operand) for operand in operands]
    return tirx.Cast("float16", tirx.call_pure_extern("float32", name, *wide))


def _exact(constant: Any) -> Any:
    """A double is printed with 15 digits behind the point: its bits say all."""
    if str(constant.ty.dtype) != "float64":
        return constant
    (bits,) = struct.unpack("<q", struct.pack("<d", constant.value))
    return tirx.call_pure_extern("float64", "planish_double", tirx.IntImm("int64", bits))


def _typed(node: Any, dtype: Any, lacking: list[str]) -> Any:
    if str(dtype) not in _DTYPES:
        lacking.append(str(dtype))
    return node

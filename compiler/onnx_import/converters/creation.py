"""Converters of operators that make tensors, and of those that change element types."""

from __future__ import annotations

import torch

from ..call import Call
from ..registry import converts
from ..size_values import any_sizes, as_sizes, refusal
from ..tensors import torch_dtype
from ..values import Sizes, Value
from .elementwise import cast

aten = torch.ops.aten


@converts("Constant")
def convert_constant(call: Call) -> Value:
    given = [name for name in call.attributes if name.startswith(("value", "sparse"))]
    name = given[0] if given else "value"
    if name == "value":
        return call.make(call.tensor_attribute("value"))
    if name == "value_float":
        return call.make(torch.tensor(call.number(name), dtype=torch.float32))
    if name == "value_floats":
        return call.make(torch.tensor(call.numbers(name), dtype=torch.float32))
    if name == "value_int":
        return call.make(torch.tensor(call.integer(name), dtype=torch.int64))
    if name == "value_ints":
        return call.make(torch.tensor(call.integers(name), dtype=torch.int64))
    raise call.refuse(f"holds a {name}, not a dense tensor of numbers")


@converts("ConstantOfShape", since=9)
def convert_constant_of_shape(call: Call) -> Value:
    filler = torch.zeros(1)
    if "value" in call.attributes:
        filler = call.tensor_attribute("value")
    if filler.numel() != 1:
        raise call.refuse("has a value of several entries")
    shape = call.sizes(0)
    return call.emit(aten.full.default, shape, filler.reshape(()).item(), dtype=filler.dtype)


@converts("Cast", since=6)
def convert_cast(call: Call) -> Value:
    dtype = torch_dtype(call.integer("to"), f"node {call.name!r}")
    value = call.value(0)
    if isinstance(value, Sizes) and dtype in (torch.int64, torch.int32):
        return value
    return cast(call, call.operand(0), dtype)


@converts("CastLike", since=15)
def convert_cast_like(call: Call) -> Value:
    return cast(call, call.operand(0), call.dtype(call.operand(1)))


@converts("BitCast", since=26)
def convert_bit_cast(call: Call) -> Value:
    x, dtype = call.operand(0), torch_dtype(call.integer("to"), f"node {call.name!r}")
    if dtype.itemsize != call.dtype(x).itemsize:
        raise call.refuse(f"reads {call.dtype(x)} as {dtype}, of another width")
    return call.emit(aten.view.dtype, x, dtype)


@converts("Range", since=11)
def convert_range(call: Call) -> Value:
    if any_sizes(call):
        ends = [sizes.items[0] for sizes in map(as_sizes, call.inputs) if sizes is not None]
        if len(ends) != 3 or ends[2] != 1 or ends[0] != 0:
            raise refusal(call)
        return call.emit(aten.arange.start_step, *ends)
    start, limit, delta = (call.real(index) for index in range(3))
    dtype = call.constant(0).dtype
    if delta == 0:
        raise call.refuse("has a step of 0")
    if (limit - start) / delta <= 0:
        return call.make(torch.zeros(0, dtype=dtype))
    return call.emit(aten.arange.start_step, start, limit, delta, dtype=dtype)


@converts("EyeLike", since=9)
def convert_eye_like(call: Call) -> Value:
    x = call.operand(0)
    rows, columns = call.fixed(x, 0), call.fixed(x, 1)
    dtype = call.dtype(x)
    if "dtype" in call.attributes:
        dtype = torch_dtype(call.integer("dtype"), f"node {call.name!r}")
    offset = call.integer("k", 0)
    ones = call.emit(aten.full.default, [rows, columns], 1, dtype=torch.int64)
    band = call.emit(aten.tril.default, call.emit(aten.triu.default, ones, offset), offset)
    return cast(call, band, dtype)


@converts("Trilu", since=14)
def convert_trilu(call: Call) -> Value:
    target = aten.triu.default if call.flag("upper", True) else aten.tril.default
    offset = call.whole(1)[0] if call.has(1) else 0
    return call.emit(target, call.operand(0), offset)

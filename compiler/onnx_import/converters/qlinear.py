"""Converters of the QLinear operators: each stands for float operators between quantizations.

Inputs come as (integers, scale, zero point); the result is quantized to a scale of its own. Most
are ONNX Runtime's, in the domain com.microsoft.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from planish.ir.errors import OperatorError

from ..call import Call
from ..grids import quantized, read_grid, real
from ..registry import converts
from ..values import Constant, Operand, Quantized, Value
from .elementwise import add, multiply
from .layers import convert_conv, convert_gemm, convert_matmul
from .pooling import convert_average_pool
from .quantized import MICROSOFT, sub_call

aten = torch.ops.aten


def _operand(call: Call, index: int, axis: int | None = None) -> Operand:
    """Return the real values of a triple that begins at `index`."""
    found = call.value(index)
    x = found.node if isinstance(found, Quantized) else call.operand(index)
    dtype = found.dtype if isinstance(found, Quantized) else call.dtype(x)
    grid = read_grid(call, index + 1, index + 2, rank=call.rank(x), axis=axis, dtype=dtype)
    return real(call, index, grid)


def _result(call: Call, y: Operand, scale: int, zero_point: int) -> Value:
    return quantized(call, y, read_grid(call, scale, zero_point, rank=call.rank(y)))


def _bias(call: Call, index: int, x_scale: int, weight_scale: int) -> Constant | None:
    """Return an int32 bias in real values: its scale is the product of the operands'."""
    if not call.has(index):
        return None
    values = call.constant(index).reshape(-1)
    scale = call.constant(x_scale).double() * call.constant(weight_scale).double()
    found = call.value(index)
    name = found.name.removesuffix("_quantized") if isinstance(found, Constant) else call.name
    return Constant((values.double() * scale.reshape(-1)).float(), name, trainable=True)


@converts("QLinearConv", since=10)
def convert_qlinear_conv(call: Call) -> Value:
    inputs = [_operand(call, 0), _operand(call, 3, axis=0), _bias(call, 8, 1, 4)]
    y = convert_conv(sub_call(call, "Conv", inputs))
    return _result(call, _node(call, y), 6, 7)


@converts("QLinearMatMul", since=10)
def convert_qlinear_matmul(call: Call) -> Value:
    inputs = [_operand(call, 0, axis=-2), _operand(call, 3, axis=-1)]
    return _result(call, _node(call, convert_matmul(sub_call(call, "MatMul", inputs))), 6, 7)


@converts("QGemm", domain=MICROSOFT)
def convert_qgemm(call: Call) -> Value:
    channel = 0 if call.flag("transB") else 1
    if call.number("alpha", 1.0) != 1:
        raise call.refuse("with alpha other than 1 is not supported")
    inputs = [_operand(call, 0), _operand(call, 3, axis=channel), _bias(call, 6, 1, 4)]
    y = _node(call, convert_gemm(sub_call(call, "Gemm", inputs)))
    return _result(call, y, 7, 8) if call.has(7) else y


@converts("MatMulIntegerToFloat", domain=MICROSOFT)
def convert_matmul_to_float(call: Call) -> Value:
    """The inputs are two matrices, two scales, two zero points, a float bias."""
    parts = []
    for index, axis in ((0, None), (1, -1)):
        found = call.value(index)
        x = found.node if isinstance(found, Quantized) else call.operand(index)
        dtype = found.dtype if isinstance(found, Quantized) else call.dtype(x)
        grid = read_grid(call, index + 2, index + 4, rank=call.rank(x), axis=axis, dtype=dtype)
        parts.append(real(call, index, grid))
    y = _node(call, convert_matmul(sub_call(call, "MatMul", parts)))
    return add(call, y, call.parameter(6)) if call.has(6) else y


def _binary(operator: str, compute: Callable[[Call, Operand, Operand], Operand]) -> None:
    @converts(operator, domain=MICROSOFT)
    def convert(call: Call) -> Value:
        return _result(call, compute(call, _operand(call, 0), _operand(call, 3)), 6, 7)

    del convert


_binary("QLinearAdd", add)
_binary("QLinearMul", multiply)


@converts("QLinearConcat", domain=MICROSOFT)
def convert_qlinear_concat(call: Call) -> Value:
    parts = [_operand(call, index) for index in range(2, len(call.inputs), 3)]
    axis = call.axis(parts[0], call.integer("axis"))
    return _result(call, call.emit(aten.cat.default, parts, axis), 0, 1)


def _unary(operator: str, compute: Callable[[Call, Operand], Any]) -> None:
    @converts(operator, domain=MICROSOFT)
    def convert(call: Call) -> Value:
        return _result(call, _node(call, compute(call, _operand(call, 0))), 3, 4)

    del convert


def _leaky_relu(call: Call, x: Operand) -> Any:
    return call.emit(aten.leaky_relu.default, x, call.number("alpha", 0.01))


def _sigmoid(call: Call, x: Operand) -> Any:
    return call.emit(aten.sigmoid.default, x)


def _softmax(call: Call, x: Operand) -> Any:
    """Since opset 13 along one axis; before, along all from that axis on."""
    axis = call.axis(x, call.integer("axis", -1))
    if call.integer("opset", 13) < 13 and axis != call.rank(x) - 1:
        raise call.refuse("with the meaning of opset 12 is supported along the last axis only")
    return call.emit(aten.softmax.int, x, axis)


def _global_average(call: Call, x: Operand) -> Any:
    if call.flag("channels_last"):
        return call.emit(aten.mean.dim, x, list(range(1, call.rank(x) - 1)), True)
    return call.emit(aten.mean.dim, x, list(range(2, call.rank(x))), True)


def _average_pool(call: Call, x: Operand) -> Any:
    if call.flag("channels_last"):
        raise call.refuse("with the channels last is not supported")
    return convert_average_pool(sub_call(call, "AveragePool", [x]))


_unary("QLinearLeakyRelu", _leaky_relu)
_unary("QLinearSigmoid", _sigmoid)
_unary("QLinearSoftmax", _softmax)
_unary("QLinearGlobalAveragePool", _global_average)
_unary("QLinearAveragePool", _average_pool)


def _node(call: Call, value: Any) -> Operand:
    """Return what a float converter gave, which is a tensor."""
    if isinstance(value, Quantized | tuple | list):
        raise OperatorError(f"{call.operator} has an unexpected form", where=call.where)
    return value

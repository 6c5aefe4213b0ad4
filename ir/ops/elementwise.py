"""Rows of the operators that work value by value: clamps, tables, arithmetic."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from .arguments import arguments
from .row import Channels, OperatorRow, Quantization

_aten = torch.ops.aten


def _relu_bounds(_: fx.Node) -> tuple[float, float]:
    return 0.0, math.inf


def _clamp_bounds(node: fx.Node) -> tuple[float, float]:
    values = arguments(node)
    low, high = (values["min"], values["max"])
    return (-math.inf if low is None else float(low), math.inf if high is None else float(high))


def _table(name: str, target: Any, onnx: str = "", *, first: str = "input") -> OperatorRow:
    return OperatorRow(
        name=name,
        targets=(target,),
        onnx=(onnx,) if onnx else (),
        channels=Channels.TIES,
        quantization=Quantization.TABLE,
        inputs=(first,),
        integer_name="table_i8",
    )


def _float_pair(name: str, target: Any, onnx: str) -> OperatorRow:
    return OperatorRow(
        name=name,
        targets=(target,),
        onnx=(onnx,),
        channels=Channels.TIES,
        quantization=Quantization.FLOAT,
        inputs=("self", "other"),
    )


ROWS = (
    OperatorRow(
        name="relu",
        targets=(_aten.relu.default,),
        onnx=("Relu",),
        channels=Channels.TIES,
        quantization=Quantization.CLAMP,
        inputs=("self",),
        bounds=_relu_bounds,
        integer_name="clamp_i8",
    ),
    OperatorRow(
        name="clamp",
        targets=(_aten.clamp.default,),
        onnx=("Clip",),
        channels=Channels.TIES,
        quantization=Quantization.CLAMP,
        inputs=("self",),
        bounds=_clamp_bounds,
        integer_name="clamp_i8",
    ),
    OperatorRow(
        name="add",
        targets=(_aten.add.Tensor,),
        onnx=("Add",),
        channels=Channels.TIES,
        quantization=Quantization.INTEGER,
        inputs=("self", "other"),
        integer_name="add_i8",
    ),
    OperatorRow(
        name="dropout",
        targets=(_aten.dropout.default,),
        onnx=("Dropout",),
        channels=Channels.TIES,
        quantization=Quantization.SAME_SCALE,
        follows_mode="train",
    ),
    _float_pair("sub", _aten.sub.Tensor, "Sub"),
    _float_pair("mul", _aten.mul.Tensor, "Mul"),
    _float_pair("div", _aten.div.Tensor, "Div"),
    _table("sigmoid", _aten.sigmoid.default, "Sigmoid", first="self"),
    _table("tanh", _aten.tanh.default, "Tanh", first="self"),
    _table("silu", _aten.silu.default, first="self"),
    _table("gelu", _aten.gelu.default, "Gelu", first="self"),
    _table("mish", _aten.mish.default, "Mish", first="self"),
    _table("elu", _aten.elu.default, "Elu", first="self"),
    _table("leaky_relu", _aten.leaky_relu.default, "LeakyRelu", first="self"),
    _table("hardswish", _aten.hardswish.default, "HardSwish", first="self"),
    _table("hardsigmoid", _aten.hardsigmoid.default, "HardSigmoid", first="self"),
    _table("softplus", _aten.softplus.default, "Softplus", first="self"),
    _table("exp", _aten.exp.default, "Exp", first="self"),
    _table("abs", _aten.abs.default, "Abs", first="self"),
    _table("neg", _aten.neg.default, "Neg", first="self"),
    _table("sqrt", _aten.sqrt.default, "Sqrt", first="self"),
    OperatorRow(
        name="softmax",
        targets=(_aten.softmax.int, _aten.log_softmax.int),
        onnx=("Softmax", "LogSoftmax"),
        channels=Channels.FIXED,
        quantization=Quantization.FLOAT,
        inputs=("self",),
    ),
    OperatorRow(
        name="matmul",
        targets=(_aten.matmul.default,),
        onnx=("MatMul",),
        channels=Channels.FIXED,
        quantization=Quantization.FLOAT,
        inputs=("self", "other"),
    ),
)

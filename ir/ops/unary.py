"""Rows of functions of one value: on the integer level each is a table of 256 entries."""

from __future__ import annotations

from typing import Any

import torch

from .row import Channels, OperatorRow, Quantization

_aten = torch.ops.aten


def _table(name: str, target: Any, onnx: str = "") -> OperatorRow:
    return OperatorRow(
        name=name,
        targets=(target,),
        onnx=(onnx,) if onnx else (),
        channels=Channels.TIES,
        quantization=Quantization.TABLE,
        inputs=("self",),
        integer_name="table_i8",
    )


ROWS = (
    _table("sigmoid", _aten.sigmoid.default, "Sigmoid"),
    _table("log_sigmoid", _aten.log_sigmoid.default),
    _table("tanh", _aten.tanh.default, "Tanh"),
    _table("silu", _aten.silu.default, "Swish"),
    _table("gelu", _aten.gelu.default, "Gelu"),
    _table("mish", _aten.mish.default, "Mish"),
    _table("elu", _aten.elu.default, "Elu"),
    _table("selu", _aten.selu.default, "Selu"),
    _table("celu", _aten.celu.default, "Celu"),
    _table("leaky_relu", _aten.leaky_relu.default, "LeakyRelu"),
    _table("hardswish", _aten.hardswish.default, "HardSwish"),
    _table("hardsigmoid", _aten.hardsigmoid.default, "HardSigmoid"),
    _table("softplus", _aten.softplus.default, "Softplus"),
    _table("exp", _aten.exp.default, "Exp"),
    _table("expm1", _aten.expm1.default),
    _table("log", _aten.log.default, "Log"),
    _table("log1p", _aten.log1p.default),
    _table("erf", _aten.erf.default, "Erf"),
    _table("abs", _aten.abs.default, "Abs"),
    _table("neg", _aten.neg.default, "Neg"),
    _table("sign", _aten.sign.default, "Sign"),
    _table("sqrt", _aten.sqrt.default, "Sqrt"),
    _table("rsqrt", _aten.rsqrt.default),
    _table("reciprocal", _aten.reciprocal.default, "Reciprocal"),
    _table("pow", _aten.pow.Tensor_Scalar, "Pow"),
    _table("floor", _aten.floor.default, "Floor"),
    _table("ceil", _aten.ceil.default, "Ceil"),
    _table("round", _aten.round.default, "Round"),
    _table("trunc", _aten.trunc.default),
    _table("sin", _aten.sin.default, "Sin"),
    _table("cos", _aten.cos.default, "Cos"),
    _table("tan", _aten.tan.default, "Tan"),
    _table("asin", _aten.asin.default, "Asin"),
    _table("acos", _aten.acos.default, "Acos"),
    _table("atan", _aten.atan.default, "Atan"),
    _table("sinh", _aten.sinh.default, "Sinh"),
    _table("cosh", _aten.cosh.default, "Cosh"),
    _table("asinh", _aten.asinh.default, "Asinh"),
    _table("acosh", _aten.acosh.default, "Acosh"),
    _table("atanh", _aten.atanh.default, "Atanh"),
)

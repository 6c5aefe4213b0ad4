"""Rows of clamps, dropout and arithmetic on two operands."""

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


def _pair(name: str, target: Any, onnx: str, quantization: Quantization) -> OperatorRow:
    """Return the row of an operator on two tensors that broadcast, or on one and a number."""
    return OperatorRow(
        name=name,
        targets=(target,),
        onnx=(onnx,),
        channels=Channels.TIES,
        quantization=quantization,
        inputs=("self", "other"),
        integer_name=f"{name}_i8" if quantization is Quantization.INTEGER else None,
        with_number=Quantization.TABLE,
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
        name="dropout",
        targets=(_aten.dropout.default,),
        onnx=("Dropout",),
        channels=Channels.TIES,
        quantization=Quantization.SAME_SCALE,
        follows_mode="train",
    ),
    _pair("add", _aten.add.Tensor, "Add", Quantization.INTEGER),
    _pair("sub", _aten.sub.Tensor, "Sub", Quantization.INTEGER),
    _pair("mul", _aten.mul.Tensor, "Mul", Quantization.INTEGER),
    _pair("div", _aten.div.Tensor, "Div", Quantization.FLOAT),
)

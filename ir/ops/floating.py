"""Rows of operators that stay in float: comparisons, choice, scatter and gather, sorting, casts.

ONNX models use them around a network, in shape arithmetic and in what comes after a detector;
none has an integer meaning.
"""

from __future__ import annotations

import operator
from typing import Any

import torch

from .row import Channels, OperatorRow, Quantization

_aten = torch.ops.aten


def _row(
    name: str, target: Any, onnx: str = "", inputs: tuple[str, ...] = ("self",)
) -> OperatorRow:
    return OperatorRow(
        name=name,
        targets=(target,),
        onnx=(onnx,) if onnx else (),
        channels=Channels.FIXED,
        quantization=Quantization.FLOAT,
        inputs=inputs,
    )


_TWO = ("self", "other")

ROWS = (
    _row("eq", _aten.eq.Tensor, "Equal", _TWO),
    _row("eq_scalar", _aten.eq.Scalar, "Equal"),
    _row("ne", _aten.ne.Tensor, "", _TWO),
    _row("ne_scalar", _aten.ne.Scalar),
    _row("gt", _aten.gt.Tensor, "Greater", _TWO),
    _row("gt_scalar", _aten.gt.Scalar, "Greater"),
    _row("ge", _aten.ge.Tensor, "GreaterOrEqual", _TWO),
    _row("ge_scalar", _aten.ge.Scalar, "GreaterOrEqual"),
    _row("lt", _aten.lt.Tensor, "Less", _TWO),
    _row("lt_scalar", _aten.lt.Scalar, "Less"),
    _row("le", _aten.le.Tensor, "LessOrEqual", _TWO),
    _row("le_scalar", _aten.le.Scalar, "LessOrEqual"),
    _row("logical_and", _aten.logical_and.default, "And", _TWO),
    _row("logical_or", _aten.logical_or.default, "Or", _TWO),
    _row("logical_xor", _aten.logical_xor.default, "Xor", _TWO),
    _row("logical_not", _aten.logical_not.default, "Not"),
    _row("bitwise_and", _aten.bitwise_and.Tensor, "BitwiseAnd", _TWO),
    _row("bitwise_or", _aten.bitwise_or.Tensor, "BitwiseOr", _TWO),
    _row("bitwise_xor", _aten.bitwise_xor.Tensor, "BitwiseXor", _TWO),
    _row("bitwise_not", _aten.bitwise_not.default, "BitwiseNot"),
    _row("shift_left", _aten.bitwise_left_shift.Tensor, "BitShift", _TWO),
    _row("shift_right", _aten.bitwise_right_shift.Tensor, "BitShift", _TWO),
    _row("where", _aten.where.self, "Where", ("condition", "self", "other")),
    _row("maximum", _aten.maximum.default, "Max", _TWO),
    _row("minimum", _aten.minimum.default, "Min", _TWO),
    _row("remainder", _aten.remainder.Tensor, "Mod", _TWO),
    _row("remainder_scalar", _aten.remainder.Scalar, "Mod"),
    _row("fmod", _aten.fmod.Tensor, "Mod", _TWO),
    _row("div_rounded", _aten.div.Tensor_mode, "Div", _TWO),
    _row("power", _aten.pow.Tensor_Tensor, "Pow", ("self", "exponent")),
    _row("threshold", _aten.threshold.default, "ThresholdedRelu"),
    _row("cast", _aten.to.dtype, "Cast"),
    _row("bit_cast", _aten.view.dtype, "BitCast"),
    _row("getitem", operator.getitem, inputs=()),
    _row("full", _aten.full.default, "ConstantOfShape", ()),
    _row("arange", _aten.arange.start_step, "Range", ()),
    _row("triu", _aten.triu.default, "Trilu"),
    _row("tril", _aten.tril.default, "Trilu"),
    _row("gather", _aten.gather.default, "GatherElements", ("self", "index")),
    _row("scatter", _aten.scatter.src, "ScatterElements", ("self", "index", "src")),
    _row("scatter_reduce", _aten.scatter_reduce.two, "ScatterElements", ("self", "index", "src")),
    _row("argsort", _aten.argsort.stable, "TopK"),
    _row("diagonal", _aten.diagonal.default),
    _row("cumprod", _aten.cumprod.default, "CumProd"),
    _row("logsumexp", _aten.logsumexp.default, "ReduceLogSumExp"),
    _row("max_pool2d_with_indices", _aten.max_pool2d_with_indices.default, "MaxPool"),
    _row("max_pool3d", _aten.max_pool3d.default, "MaxPool"),
    _row("avg_pool3d", _aten.avg_pool3d.default, "AveragePool"),
    _row("repeat_interleave", _aten.repeat_interleave.self_int),
    _row("grid_sampler_2d", _aten.grid_sampler_2d.default, "GridSample", ("input", "grid")),
    _row("grid_sampler_3d", _aten.grid_sampler_3d.default, "GridSample", ("input", "grid")),
    _row("col2im", _aten.col2im.default, "Col2Im"),
)

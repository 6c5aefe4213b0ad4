"""Rows of what reads a whole axis: means, sums, softmax, norms, matrix products."""

from __future__ import annotations

from typing import Any

import torch

from .macs import matmul_macs
from .row import Channels, OperatorRow, Quantization

_aten = torch.ops.aten


def _row(
    name: str,
    target: Any,
    onnx: tuple[str, ...],
    quantization: Quantization = Quantization.FLOAT,
    inputs: tuple[str, ...] = ("self",),
    **rest: Any,
) -> OperatorRow:
    return OperatorRow(
        name=name,
        targets=(target,),
        onnx=onnx,
        channels=Channels.FIXED,
        quantization=quantization,
        inputs=inputs,
        **rest,
    )


ROWS = (
    _row("mean", _aten.mean.dim, ("ReduceMean",), Quantization.INTEGER, integer_name="mean_i8"),
    _row(
        "sum",
        _aten.sum.dim_IntList,
        ("ReduceSum",),
        Quantization.INTEGER,
        integer_name="mean_i8",
    ),
    _row(
        "softmax", _aten.softmax.int, ("Softmax",), Quantization.INTEGER, integer_name="softmax_i8"
    ),
    _row("log_softmax", _aten.log_softmax.int, ("LogSoftmax",)),
    _row(
        "matmul",
        _aten.matmul.default,
        ("MatMul",),
        Quantization.INTEGER,
        ("self", "other"),
        macs=matmul_macs,
        integer_name="matmul_i8",
    ),
    _row(
        "layer_norm",
        _aten.layer_norm.default,
        ("LayerNormalization",),
        Quantization.INTEGER,
        ("input",),
        integer_name="layer_norm_i8",
    ),
    _row("group_norm", _aten.group_norm.default, ("GroupNormalization",), inputs=("input",)),
    _row("amax", _aten.amax.default, ("ReduceMax",)),
    _row("amin", _aten.amin.default, ("ReduceMin",)),
    _row("prod", _aten.prod.dim_int, ("ReduceProd",)),
    _row("argmax", _aten.argmax.default, ("ArgMax",)),
    _row("argmin", _aten.argmin.default, ("ArgMin",)),
    _row("cumsum", _aten.cumsum.default, ("CumSum",)),
)

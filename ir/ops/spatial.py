"""Rows of pooling and of interpolation."""

from __future__ import annotations

from typing import Any

import torch

from .row import Channels, OperatorRow, Quantization

_aten = torch.ops.aten


def _pool(name: str, target: Any, onnx: str, quantization: Quantization) -> OperatorRow:
    return OperatorRow(
        name=name,
        targets=(target,),
        onnx=(onnx,),
        channels=Channels.POOLS,
        quantization=quantization,
        inputs=("self",),
        integer_name=f"{name}_i8",
    )


ROWS = (
    _pool("max_pool2d", _aten.max_pool2d.default, "MaxPool", Quantization.SAME_SCALE),
    _pool("avg_pool2d", _aten.avg_pool2d.default, "AveragePool", Quantization.INTEGER),
    _pool(
        "adaptive_avg_pool2d",
        _aten.adaptive_avg_pool2d.default,
        "GlobalAveragePool",
        Quantization.INTEGER,
    ),
    OperatorRow(
        name="resize",
        targets=(_aten.upsample_bilinear2d.default,),
        onnx=("Resize",),
        channels=Channels.POOLS,
        quantization=Quantization.INTEGER,
        inputs=("self",),
        integer_name="resize_i8",
    ),
)

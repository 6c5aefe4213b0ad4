"""Rows of pooling and of the operators that only move values."""

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


def _move(name: str, target: Any, onnx: str, channels: Channels = Channels.FIXED) -> OperatorRow:
    return OperatorRow(
        name=name,
        targets=(target,),
        onnx=(onnx,),
        channels=channels,
        quantization=Quantization.SAME_SCALE,
        inputs=("self",),
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
        name="cat",
        targets=(_aten.cat.default,),
        onnx=("Concat",),
        channels=Channels.CONCATENATES,
        quantization=Quantization.SAME_SCALE,
        inputs=("tensors",),
    ),
    _move("flatten", _aten.flatten.using_ints, "Flatten", Channels.FLATTENS),
    _move("reshape", _aten.reshape.default, "Reshape"),
    _move("permute", _aten.permute.default, "Transpose"),
    _move("slice", _aten.slice.Tensor, "Slice"),
    _move("unsqueeze", _aten.unsqueeze.default, "Unsqueeze"),
    _move("squeeze", _aten.squeeze.dims, "Squeeze"),
    OperatorRow(
        name="mean",
        targets=(_aten.mean.dim,),
        onnx=("ReduceMean",),
        channels=Channels.FIXED,
        quantization=Quantization.FLOAT,
        inputs=("self",),
    ),
    OperatorRow(
        name="pad",
        targets=(_aten.constant_pad_nd.default,),
        onnx=("Pad",),
        channels=Channels.FIXED,
        quantization=Quantization.FLOAT,
        inputs=("self",),
    ),
    OperatorRow(
        name="sym_size",
        targets=(_aten.sym_size.int,),
        onnx=("Shape",),
        channels=Channels.FIXED,
        quantization=Quantization.SAME_SCALE,
        inputs=(),
    ),
)

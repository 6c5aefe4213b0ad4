"""Rows of the operators that hold weights: convolutions, linear, batch norm."""

from __future__ import annotations

import torch

from .macs import convolution_macs, linear_macs, transposed_convolution_macs
from .row import Channels, OperatorRow, Quantization

_aten = torch.ops.aten

ROWS = (
    OperatorRow(
        name="conv2d",
        targets=(_aten.conv2d.default,),
        onnx=("Conv",),
        channels=Channels.PRODUCES,
        quantization=Quantization.INTEGER,
        parameters=(("weight", 0), ("bias", 0)),
        macs=convolution_macs,
        integer_name="conv2d_i8",
    ),
    OperatorRow(
        name="linear",
        targets=(_aten.linear.default,),
        onnx=("Gemm", "MatMul"),
        channels=Channels.PRODUCES,
        quantization=Quantization.INTEGER,
        parameters=(("weight", 0), ("bias", 0)),
        macs=linear_macs,
        integer_name="linear_i8",
    ),
    OperatorRow(
        name="batch_norm",
        targets=(_aten.batch_norm.default,),
        onnx=("BatchNormalization",),
        channels=Channels.NORMALIZES,
        quantization=Quantization.FLOAT,
        parameters=(("weight", 0), ("bias", 0), ("running_mean", 0), ("running_var", 0)),
        follows_mode="training",
    ),
    OperatorRow(
        name="conv_transpose2d",
        targets=(_aten.conv_transpose2d.input,),
        onnx=("ConvTranspose",),
        channels=Channels.FIXED,
        quantization=Quantization.INTEGER,
        macs=transposed_convolution_macs,
        integer_name="conv_transpose2d_i8",
    ),
    OperatorRow(
        name="conv3d",
        targets=(_aten.conv3d.default,),
        onnx=("Conv",),
        channels=Channels.FIXED,
        quantization=Quantization.FLOAT,
        macs=convolution_macs,
    ),
    OperatorRow(
        name="conv_transpose3d",
        targets=(_aten.conv_transpose3d.input,),
        onnx=("ConvTranspose",),
        channels=Channels.FIXED,
        quantization=Quantization.FLOAT,
        macs=transposed_convolution_macs,
    ),
)

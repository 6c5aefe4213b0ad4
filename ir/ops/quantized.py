"""Rows of fake-quantize and of the integer operators (their meaning: `planish.ir.integer`)."""

from __future__ import annotations

import torch

from .. import integer  # noqa: F401  (defines torch.ops.planish)
from ..level import Level
from .macs import convolution_macs, linear_macs, matmul_macs, transposed_convolution_macs
from .row import INTEGER_ONLY, Channels, OperatorRow, Quantization

_planish = torch.ops.planish


def _integer(name: str, inputs: tuple[str, ...] = ("x",), macs: object = None) -> OperatorRow:
    return OperatorRow(
        name=name,
        targets=(getattr(_planish, name).default,),
        channels=Channels.FIXED,
        quantization=Quantization.INTEGER,
        inputs=inputs,
        macs=macs,  # type: ignore[arg-type]
        levels=INTEGER_ONLY,
    )


ROWS = (
    OperatorRow(
        name="fake_quantize",
        targets=(_planish.fake_quantize.default,),
        onnx=("QuantizeLinear", "DequantizeLinear"),
        channels=Channels.FIXED,
        quantization=Quantization.SAME_SCALE,
        inputs=("x",),
        levels=frozenset({Level.QUANTIZED}),
    ),
    _integer("quantize"),
    _integer("dequantize", ("q",)),
    _integer("conv2d_i8", macs=convolution_macs),
    _integer("linear_i8", macs=linear_macs),
    _integer("add_i8", ("a", "b")),
    _integer("requantize_i8"),
    _integer("clamp_i8"),
    _integer("table_i8"),
    _integer("max_pool2d_i8"),
    _integer("avg_pool2d_i8"),
    _integer("adaptive_avg_pool2d_i8"),
    _integer("mul_i8", ("a", "b")),
    _integer("matmul_i8", ("a", "b"), macs=matmul_macs),
    _integer("softmax_i8"),
    _integer("layer_norm_i8"),
    _integer("mean_i8"),
    _integer("conv_transpose2d_i8", macs=transposed_convolution_macs),
    _integer("resize_i8"),
    _integer("pad_i8"),
    _integer("conv2d_dq", macs=convolution_macs),
    _integer("linear_dq", macs=linear_macs),
    _integer("matmul_dq", ("a", "b"), macs=matmul_macs),
)

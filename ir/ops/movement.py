"""Rows of the operators that only move values, and of those that read sizes."""

from __future__ import annotations

from typing import Any

import torch

from .row import Channels, OperatorRow, Quantization

_aten = torch.ops.aten


def _move(
    name: str,
    target: Any,
    onnx: str = "",
    channels: Channels = Channels.FIXED,
    inputs: tuple[str, ...] = ("self",),
) -> OperatorRow:
    return OperatorRow(
        name=name,
        targets=(target,),
        onnx=(onnx,) if onnx else (),
        channels=channels,
        quantization=Quantization.SAME_SCALE,
        inputs=inputs,
    )


ROWS = (
    _move("cat", _aten.cat.default, "Concat", Channels.CONCATENATES, ("tensors",)),
    _move("flatten", _aten.flatten.using_ints, "Flatten", Channels.FLATTENS),
    _move("reshape", _aten.reshape.default, "Reshape"),
    _move("permute", _aten.permute.default, "Transpose"),
    _move("slice", _aten.slice.Tensor, "Slice"),
    _move("select", _aten.select.int),
    _move("unsqueeze", _aten.unsqueeze.default, "Unsqueeze"),
    _move("squeeze", _aten.squeeze.dims, "Squeeze"),
    _move("expand", _aten.expand.default, "Expand"),
    _move("repeat", _aten.repeat.default, "Tile"),
    _move("flip", _aten.flip.default),
    _move("roll", _aten.roll.default),
    _move("pixel_shuffle", _aten.pixel_shuffle.default, "DepthToSpace"),
    _move("pixel_unshuffle", _aten.pixel_unshuffle.default, "SpaceToDepth"),
    _move("index_select", _aten.index_select.default, "Gather"),
    _move("embedding", _aten.embedding.default, inputs=("weight",)),
    _move("upsample_nearest2d", _aten.upsample_nearest2d.default, "Resize", Channels.POOLS),
    _move("reflection_pad2d", _aten.reflection_pad2d.default, channels=Channels.POOLS),
    _move("replication_pad2d", _aten.replication_pad2d.default, channels=Channels.POOLS),
    _move("pad", _aten.constant_pad_nd.default, "Pad"),
    _move("sym_size", _aten.sym_size.int, "Shape", inputs=()),
)

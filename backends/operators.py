"""Which operators run as integer kernels, and which function lowers each."""

from __future__ import annotations

from typing import Any

import torch
import torch.fx

import planish.ir.integer  # noqa: F401  # defines the operators of torch.ops.planish

_planish, _aten = torch.ops.planish, torch.ops.aten

# Integer operators to "module:function" in `lower`; a function takes (lowering, node).
OPERATORS: dict[Any, str] = {
    _planish.quantize.default: "boundary:quantize",
    _planish.dequantize.default: "boundary:dequantize",
    _planish.conv2d_i8.default: "convolution:convolution",
    _planish.linear_i8.default: "convolution:linear",
    _planish.add_i8.default: "elementwise:add",
    _planish.mul_i8.default: "elementwise:mul",
    _planish.matmul_i8.default: "matmul:matmul",
    _planish.matmul_dq.default: "matmul:matmul",
    _planish.softmax_i8.default: "normalization:softmax",
    _planish.layer_norm_i8.default: "normalization:layer_norm",
    _planish.mean_i8.default: "normalization:mean",
    _planish.requantize_i8.default: "elementwise:requantize",
    _planish.clamp_i8.default: "elementwise:clamp",
    _planish.table_i8.default: "elementwise:table",
    _planish.conv_transpose2d_i8.default: "transposed:transposed_convolution",
    _planish.conv2d_dq.default: "real_layer:convolution",
    _planish.linear_dq.default: "real_layer:linear",
    _planish.resize_i8.default: "resampling:resize",
    _planish.pad_i8.default: "resampling:pad",
    _planish.max_pool2d_i8.default: "pooling:max_pool",
    _planish.avg_pool2d_i8.default: "pooling:average_pool",
    _planish.adaptive_avg_pool2d_i8.default: "pooling:adaptive_average_pool",
}
# Operators that only move values; on int8 or uint8 tensors they stay in the integer region.
MOVEMENTS = frozenset(
    {
        _aten.cat.default,
        _aten.flatten.using_ints,
        _aten.view.default,
        _aten.reshape.default,
        _aten.permute.default,
        _aten.transpose.int,
        _aten.slice.Tensor,
        _aten.unsqueeze.default,
        _aten.squeeze.default,
        _aten.squeeze.dim,
        _aten.squeeze.dims,
        _aten.expand.default,
        _aten.select.int,
        _aten.clone.default,
        _aten.contiguous.default,
        _aten.flip.default,
        _aten.channel_shuffle.default,
        _aten.pixel_shuffle.default,
        _aten.pixel_unshuffle.default,
        _aten.repeat.default,
        _aten.roll.default,
        _aten.index_select.default,
        _aten.upsample_nearest2d.default,
        _aten.reflection_pad2d.default,
        _aten.replication_pad2d.default,
        _aten.embedding.default,
    }
)
# Those of them that read an index, which may be computed.
BY_INDEX: dict[Any, str] = {
    _aten.embedding.default: "indexing:embedding",
    _aten.index_select.default: "indexing:index_select",
}
BYTES = (torch.uint8, torch.int8)


def is_bytes(node: torch.fx.Node) -> bool:
    """Whether a node's value is a uint8 or int8 tensor."""
    return getattr(node.meta.get("val"), "dtype", None) in BYTES


def is_movement(node: torch.fx.Node) -> bool:
    """Whether a node moves quantized values."""
    return node.target in MOVEMENTS and is_bytes(node)


def is_integer(node: torch.fx.Node) -> bool:
    """Whether a node runs as an integer kernel."""
    return node.op == "call_function" and (node.target in OPERATORS or is_movement(node))


def is_float(node: torch.fx.Node) -> bool:
    """Whether a node is computed by a float kernel."""
    return (
        node.op == "call_function"
        and isinstance(node.meta.get("val"), torch.Tensor | tuple | list)
        and not is_integer(node)
    )


def sizes_of(node: torch.fx.Node) -> tuple[int, ...]:
    """Return a node's sizes, all known."""
    return tuple(int(size) for size in node.meta["val"].shape)

"""weights: along which axis a layer's weight has its output channels, and scales along it."""

from __future__ import annotations

import torch
from torch import fx

from planish.ir.ops import arguments, row

# Operators whose weights are quantized, and the axis of the weight that the scales lie along.
# A transposed convolution's weight is [in, out/groups, kh, kw]: every group has the same scales.
_AXES = {"conv2d": 0, "linear": 0, "conv_transpose2d": 1}


def has_weight(node: fx.Node) -> bool:
    """Whether a node is a layer whose weight insert-qdq quantizes."""
    return row(node).name in _AXES


def weight_axis(name: str) -> int:
    """Return the axis of a layer's weight that its scales lie along."""
    return _AXES[name]


def along_axis(parameter: torch.Tensor, axis: int, dim: int) -> torch.Tensor:
    """Shape scales or zero points, [channels] or [], so that they broadcast along an axis."""
    if parameter.dim() == 0:
        return parameter
    return parameter.view([-1 if i == axis else 1 for i in range(dim)])


def per_output(layer: fx.Node, scale: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return one scale an output channel, from the scales of a layer's weight: float32 [out]."""
    groups = arguments(layer)["groups"] if row(layer).name == "conv_transpose2d" else 1
    channels = weight.shape[weight_axis(row(layer).name)]
    return scale.expand(channels).repeat(groups).contiguous()

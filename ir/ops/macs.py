"""Multiply-accumulates (MACs) of one node for one sample."""

from __future__ import annotations

from math import prod

from torch import fx

from .arguments import weight_shape


def convolution_macs(node: fx.Node) -> int:
    """Output positions times the weights that each one reads: [out, in/groups, kh, kw]."""
    _, _, *spatial = node.meta["val"].shape
    return prod(int(size) for size in spatial) * prod(weight_shape(node))


def linear_macs(node: fx.Node) -> int:
    """Rows of one sample times the weight's entries."""
    middle = node.meta["val"].shape[1:-1]
    return prod(int(size) for size in middle) * prod(weight_shape(node))

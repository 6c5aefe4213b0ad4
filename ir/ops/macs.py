"""Multiply-accumulates (MACs) of one node for one sample."""

from __future__ import annotations

from math import prod

from torch import fx

from .arguments import arguments, weight_shape


def convolution_macs(node: fx.Node) -> int:
    """Output positions times the weights that each one reads: [out, in/groups, kh, kw]."""
    _, _, *spatial = node.meta["val"].shape
    return prod(int(size) for size in spatial) * prod(weight_shape(node))


def linear_macs(node: fx.Node) -> int:
    """Rows of one sample times the weight's entries."""
    middle = node.meta["val"].shape[1:-1]
    return prod(int(size) for size in middle) * prod(weight_shape(node))


def transposed_convolution_macs(node: fx.Node) -> int:
    """Input positions times the weights that each one meets: [in, out/groups, kh, kw]."""
    values = arguments(node)
    x = values["input"] if "input" in values else values["x"]
    _, _, *spatial = x.meta["val"].shape
    return prod(int(size) for size in spatial) * prod(weight_shape(node))


def matmul_macs(node: fx.Node) -> int:
    """Output values of one sample times the length of the sums; axis 0 holds the samples."""
    first = next(iter(arguments(node).values()))
    inner = int(first.meta["val"].shape[-1])
    sizes = node.meta["val"].shape
    batched = len(sizes) > 2 or first.meta["val"].dim() > 2
    return inner * prod(int(size) for size in (sizes[1:] if batched else sizes))

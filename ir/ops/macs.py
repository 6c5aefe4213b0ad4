"""Multiply-accumulates (MACs) of one node for one sample."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import fx

from .arguments import arguments, weight_shape


def _per_sample(node: fx.Node, sizes: Any) -> int:
    """Return how many values a tensor of these sizes holds for one sample.

    The samples need not lie on axis 0: attention has [length, n, width], windows [n * 4, ...].
    Their number is the size of axis 0 of the graph's first input.
    """
    inputs = [n.meta.get("val") for n in node.graph.nodes if n.op == "placeholder"]
    samples = [v.shape[0] for v in inputs if isinstance(v, torch.Tensor) and v.dim()]
    count = prod(_hint(size) for size in sizes)
    return count // max(_hint(samples[0]), 1) if samples else count


def _hint(size: Any) -> int:
    """The number that stands for a size while shapes are inferred."""
    return size if isinstance(size, int) else size.node.hint


def convolution_macs(node: fx.Node) -> int:
    """Output positions times the weights that each one reads: [out, in/groups, kh, kw]."""
    _, _, *spatial = node.meta["val"].shape
    return prod(int(size) for size in spatial) * prod(weight_shape(node))


def linear_macs(node: fx.Node) -> int:
    """Rows of one sample times the weight's entries."""
    return _per_sample(node, node.meta["val"].shape[:-1]) * prod(weight_shape(node))


def transposed_convolution_macs(node: fx.Node) -> int:
    """Input positions times the weights that each one meets: [in, out/groups, kh, kw]."""
    values = arguments(node)
    x = values["input"] if "input" in values else values["x"]
    _, _, *spatial = x.meta["val"].shape
    return prod(int(size) for size in spatial) * prod(weight_shape(node))


def matmul_macs(node: fx.Node) -> int:
    """Output values of one sample times the length of the sums."""
    first = next(iter(arguments(node).values()))
    return _hint(first.meta["val"].shape[-1]) * _per_sample(node, node.meta["val"].shape)

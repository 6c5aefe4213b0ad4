"""emitters: which function emits an operator; each is in the emit_ module of its kind."""

from __future__ import annotations

from collections.abc import Callable

from torch import fx

from planish.ir.ops import row

from . import emit_elementwise, emit_layers, emit_normalization, emit_pooling, emit_resampling
from .emission import Emission

_EMITTERS: dict[str, Callable[[Emission], fx.Node]] = {
    "conv2d": emit_layers.conv2d,
    "linear": emit_layers.linear,
    "conv_transpose2d": emit_layers.conv_transpose2d,
    "matmul": emit_layers.matmul,
    "add": emit_elementwise.add,
    "sub": emit_elementwise.sub,
    "mul": emit_elementwise.mul,
    "softmax": emit_normalization.softmax,
    "layer_norm": emit_normalization.layer_norm,
    "mean": emit_normalization.mean,
    "sum": emit_normalization.mean,
    "avg_pool2d": emit_pooling.avg_pool2d,
    "adaptive_avg_pool2d": emit_pooling.adaptive_avg_pool2d,
    "resize": emit_resampling.resize,
}
# Operators that keep the scale, but are not what they are in float.
_MOVERS: dict[str, Callable[[Emission], fx.Node]] = {
    "max_pool2d": emit_pooling.max_pool2d,
    "upsample_nearest2d": emit_resampling.upsample_nearest2d,
    "pad": emit_resampling.pad,
}
# Operators that give real numbers out of integers where nobody quantizes their result.
REAL = frozenset({"conv2d", "linear", "matmul"})


def emit(emission: Emission) -> fx.Node:
    """Emit the integer form of one operator.

    Raises:
        NoIntegerForm: Its constants don't fit; the text says why.
    """
    return _EMITTERS[row(emission.node).name](emission)


def mover(node: fx.Node) -> Callable[[Emission], fx.Node] | None:
    """Return the emitter of an operator that keeps the scale, None if it stays what it is."""
    return _MOVERS.get(row(node).name)

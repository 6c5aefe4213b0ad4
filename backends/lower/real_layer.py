"""conv2d_dq and linear_dq: layers whose result is float32, dense."""

from __future__ import annotations

from typing import Any

import torch.fx

from planish.ir.ops import arguments

from ..borders import reached_by_windows
from ..choosing import emit_layer
from ..copying import emit_map
from ..layer import Layer
from ..layout import Layout, as_matrix, dense_layout, loops_over, row_layout, vector_layout
from ..lowering import Lowering
from ..value import Value


def convolution(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower conv2d_dq: channels last, then copied to the order that float operators have."""
    values = arguments(node)
    shift = 128 if str(values["x"].meta["val"].dtype) == "torch.int8" else 0
    zero_point = int(values["x_zero_point"]) + shift
    x = lowering.padded(values["x"], reached_by_windows(node), zero_point)
    top, left, _, _ = values["padding"]
    y = _result(lowering, node, vector_layout(lowering.shape(node), "float32"))
    _emit(
        lowering,
        node,
        x,
        y,
        kernel=lowering.shape(values["weight"])[2:],
        stride=tuple(values["stride"]),
        dilation=tuple(values["dilation"]),
        origin=(top, left),
        groups=int(values["groups"]),
    )
    _to_dense(lowering, node, y)


def linear(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower linear_dq."""
    values = arguments(node)
    y = _result(lowering, node, row_layout(lowering.shape(node), "float32"))
    rows = as_matrix(y.layout)
    assert rows is not None
    one = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "origin": (0, 0), "groups": 1}
    _emit(lowering, node, lowering.matrix(values["x"]), y.view(y.name, rows), **one)
    _to_dense(lowering, node, y)


def _result(lowering: Lowering, node: torch.fx.Node, layout: Layout) -> Value:
    """Return the node's own value if vectors may write it as it lies, else memory beside it.

    Vectors write whole multiples of 8 channels: only where the channels are that is nothing more
    written than the tensor.
    """
    y = lowering.new_dense(node)
    dense = dense_layout(layout.shape, layout.dtype)
    if (layout.steps, layout.size) == (dense.steps, dense.size):
        return y
    return Value(f"{node.name}_padded", layout, dense=True)


def _to_dense(lowering: Lowering, node: torch.fx.Node, made: Value) -> None:
    y = lowering.values[node]
    if made is not y:
        loops = loops_over(y.layout.shape, made.layout, y.layout, inner=1)
        emit_map(lowering.plan, "copy", made, y, loops, lowering.label(node))


def _emit(lowering: Lowering, node: torch.fx.Node, x: Value, y: Value, **geometry: Any) -> None:
    values = arguments(node)
    weight, multiplier = lowering.stored(values["weight"]), lowering.stored(values["multiplier"])
    assert weight is not None
    assert multiplier is not None
    layer = Layer(
        x=x,
        y=y,
        weight=weight,
        bias=lowering.stored(values["bias"]),
        multiplier=multiplier,
        x_zero_point=int(values["x_zero_point"]) + x.shift,
        lo=0,
        hi=0,
        zero_point=0,
        residual=None,
        label=lowering.label(node),
        real=True,
        **geometry,
    )
    emit_layer(layer, lowering.plan)

"""conv2d_i8 and linear_i8 become layers."""

from __future__ import annotations

from typing import Any

import torch.fx

from planish.ir.ops import arguments

from ..borders import reached_by_windows
from ..choosing import emit_layer
from ..layer import Layer, Residual
from ..layout import as_matrix
from ..lowering import Lowering
from ..value import Value


def convolution(lowering: Lowering, node: torch.fx.Node, add: torch.fx.Node | None = None) -> None:
    """Lower conv2d_i8, with the add_i8 that joins it if there is one."""
    values = arguments(node)
    _, _, height, width = lowering.shape(values["weight"])
    stored_shift = 128 if str(values["x"].meta["val"].dtype) == "torch.int8" else 0
    zero_point = int(values["x_zero_point"]) + stored_shift
    top, left, _, _ = values["padding"]
    x = lowering.padded(values["x"], reached_by_windows(node), zero_point)
    _emit(
        lowering,
        node,
        x,
        values,
        kernel=(height, width),
        stride=tuple(values["stride"]),
        dilation=tuple(values["dilation"]),
        origin=(top, left),
        groups=int(values["groups"]),
        add=add,
    )


def linear(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower linear_i8: a 1 x 1 convolution whose images are the rows."""
    values = arguments(node)
    x, y = lowering.matrix(values["x"]), lowering.new_integer(node)
    rows = as_matrix(y.layout)
    assert rows is not None
    one = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "origin": (0, 0), "groups": 1}
    _emit(lowering, node, x, values, y=y.view(y.name, rows), add=None, **one)


def _emit(
    lowering: Lowering,
    node: torch.fx.Node,
    x: Value,
    values: dict[str, Any],
    *,
    add: torch.fx.Node | None,
    y: Value | None = None,
    **geometry: Any,
) -> None:
    result = add or node
    shift = 128 if str(values["dtype"]) == "torch.int8" else 0
    zero_point = int(values["y_zero_point"])
    lo, hi = lowering.fusion.bounds(node)
    residual = _residual(lowering, node, add) if add is not None else None
    weight, multiplier = lowering.stored(values["weight"]), lowering.stored(values["multiplier"])
    assert weight is not None
    assert multiplier is not None
    layer = Layer(
        x=x,
        y=y or lowering.new_integer(result),
        weight=weight,
        bias=lowering.stored(values["bias"]),
        multiplier=multiplier,
        x_zero_point=int(values["x_zero_point"]) + x.shift,
        lo=lo - zero_point,
        hi=hi - zero_point,
        zero_point=zero_point + shift,
        residual=residual,
        label=lowering.label(node),
        **geometry,
    )
    emit_layer(layer, lowering.plan)


def _residual(lowering: Lowering, node: torch.fx.Node, add: torch.fx.Node) -> Residual:
    """Return the addition, seen from the convolution's side."""
    values = arguments(add)
    mine = "a" if values["a"] is lowering.fusion.last(node) else "b"
    yours = "b" if mine == "a" else "a"
    other = lowering.integer(values[yours])
    lo, hi = lowering.fusion.bounds(add)
    y_zero_point = int(values["y_zero_point"])
    return Residual(
        other=other,
        self_factor=int(values[f"{mine}_multiplier"]),
        other_factor=int(values[f"{yours}_multiplier"]),
        other_zero_point=int(values[f"{yours}_zero_point"]) + other.shift,
        scale=2.0 ** -int(values["shift"]),
        lo=lo - y_zero_point,
        hi=hi - y_zero_point,
        zero_point=y_zero_point + (128 if str(values["dtype"]) == "torch.int8" else 0),
    )

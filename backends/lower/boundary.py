"""Between float or user memory and the integer region: quantize, dequantize, pack, unpack."""

from __future__ import annotations

import torch.fx

from planish.ir.ops import arguments

from ..layout import Layout, as_two_axes, dense_layout, loop_nest
from ..lowering import Lowering, dtype_name
from ..plan import Value
from .movement import emit_map


def nest(
    shape: tuple[int, ...], x: Layout, y: Layout, *, inner: int
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Return the loops over a tensor; of more than four axes, the leading ones are dense."""
    loops = loop_nest(shape, x.steps, y.steps, inner=inner)
    return loops or as_two_axes(shape, x, y, inner=inner)


def quantize(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower quantize: float32, row-major, to the integer region."""
    values = arguments(node)
    x, y = lowering.dense(values["x"]), lowering.new_integer(node)
    zero_point = int(values["zero_point"])
    # Of few channels (an image's), whole rows are read; of many, whole pixels are written.
    inner = 0 if y.layout.pixels[3] < 8 else 1
    loops = nest(y.layout.shape, x.layout, y.layout, inner=inner)
    numbers = (
        float(values["scale"]),
        0,
        int(values["lo"]) - zero_point,
        int(values["hi"]) - zero_point,
        zero_point + y.shift,
    )
    emit_map(lowering, "quantize", x, y, loops, lowering.label(node), numbers=numbers)


def dequantize(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower dequantize: from the integer region to float32, row-major."""
    values = arguments(node)
    x, y = _readable(lowering, values["q"]), lowering.new_dense(node)
    loops = nest(y.layout.shape, x.layout, y.layout, inner=1)
    numbers = (float(values["scale"]), int(values["zero_point"]) + x.shift, 0, 0, 0)
    emit_map(lowering, "dequantize", x, y, loops, lowering.label(node), numbers=numbers)


def _readable(lowering: Lowering, node: torch.fx.Node) -> Value:
    """Return a value of the integer region that four loops can walk beside a dense one."""
    x = lowering.strided(node)
    nest = loop_nest(x.layout.shape, x.layout.steps, dense_layout(x.layout.shape, "").steps)
    return lowering.integer(node) if nest is None else x


def pack(lowering: Lowering, node: torch.fx.Node) -> Value:
    """Copy a row-major uint8 or int8 tensor into the integer region."""
    x = lowering.values[node]
    y = lowering.new_integer(node)
    lowering.values[node] = x
    loops = nest(y.layout.shape, x.layout, y.layout, inner=1)
    emit_map(lowering, "shift", x, y, loops, lowering.label(node), numbers=(1.0, y.shift, 0, 0, 0))
    return y


def unpack(lowering: Lowering, node: torch.fx.Node) -> Value:
    """Copy a value of the integer region to a row-major tensor of its own dtype."""
    value = lowering.value(node)
    x = _readable(lowering, node)
    y = lowering.new_dense(node)
    lowering.values[node] = value
    assert y.layout.dtype == dtype_name(node.meta["val"].dtype)
    loops = nest(y.layout.shape, x.layout, y.layout, inner=1)
    numbers = (1.0, -x.shift, 0, 0, 0)
    emit_map(lowering, "shift", x, y, loops, lowering.label(node), numbers=numbers)
    return y

"""add_i8, mul_i8, requantize_i8, clamp_i8, table_i8."""

from __future__ import annotations

import numpy as np
import torch.fx

from planish.ir.ops import arguments

from ..copying import PARALLEL_VALUES, copy_offsets, emit_map, offsets
from ..kernels import Kernel
from ..layout import Layout, as_two_axes, loop_nest
from ..lowering import Lowering
from ..plan import Pointer
from ..value import Value
from .convolution import convolution


def _broadcast_steps(layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the steps of a tensor seen in a shape that it broadcasts to."""
    missing = len(shape) - len(layout.shape)
    return tuple(
        0
        if axis < missing or layout.shape[axis - missing] != size
        else layout.steps[axis - missing]
        for axis, size in enumerate(shape)
    )


def add(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower add_i8: in the epilogue of a convolution where it joins one, else by itself."""
    if node in lowering.fusion.residuals:
        convolution(lowering, lowering.fusion.residuals[node], node)
        return
    values = arguments(node)
    factors = int(values["a_multiplier"]), int(values["b_multiplier"])
    _two_operands(lowering, node, "add", factors, 2.0 ** (-int(values["shift"])))


def mul(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower mul_i8."""
    _two_operands(lowering, node, "mul", (1, 1), float(arguments(node)["multiplier"]))


def _two_operands(
    lowering: Lowering,
    node: torch.fx.Node,
    operator: str,
    factors: tuple[int, int],
    scale: float,
) -> None:
    values = arguments(node)
    a, b = lowering.strided(values["a"]), lowering.strided(values["b"])
    y = lowering.new_integer(node)
    shape = y.layout.shape
    steps = [_broadcast_steps(v.layout, shape) for v in (a, b)]
    nest = loop_nest(shape, *steps, y.layout.steps, inner=2)
    if nest is None:
        a, b = (_expanded(lowering, v, y, node) for v in (a, b))
        nest = loop_nest(shape, a.layout.steps, b.layout.steps, y.layout.steps, inner=2)
    assert nest is not None
    sizes, (a_steps, b_steps, y_steps) = nest
    a_zero = int(values["a_zero_point"]) + a.shift
    b_zero = int(values["b_zero_point"]) + b.shift
    lo, hi = lowering.fusion.bounds(node)
    zero_point = int(values["y_zero_point"])
    plan = lowering.plan
    kernel = Kernel.of(
        "two-operands",
        operator=operator,
        storage=plan.target.storage_dtype,
        steps=tuple(s[3] if s[3] in (0, 1) else -1 for s in (a_steps, b_steps, y_steps)),
        parallel=plan.parallel(int(np.prod(sizes)), PARALLEL_VALUES) and sizes[0] * sizes[1] > 1,
    )
    offset = -(a_zero * factors[0] + b_zero * factors[1])
    plan.call(
        kernel,
        [Pointer(v, v.layout.base) for v in (a, b, y)],
        [
            *sizes,
            *a_steps,
            *b_steps,
            *y_steps,
            *((*factors, offset) if operator == "add" else (a_zero, b_zero, 0)),
            scale,
            lo - zero_point,
            hi - zero_point,
            zero_point + y.shift,
        ],
        lowering.label(node),
    )


def _expanded(lowering: Lowering, value: Value, like: Value, node: torch.fx.Node) -> Value:
    """Return a copy of a value, repeated to the shape and layout of another."""
    copy = Value(f"{value.name}_expanded", like.layout, shift=value.shift)
    x = np.broadcast_to(offsets(value.layout), like.layout.shape)
    copy_offsets(lowering.plan, value, copy, x, offsets(like.layout), lowering.label(node))
    return copy


def requantize(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower requantize_i8."""
    values = arguments(node)
    x, y = lowering.strided(values["x"]), lowering.new_integer(node)
    lo, hi = lowering.fusion.bounds(node)
    zero_point = int(values["y_zero_point"])
    numbers = (
        float(values["multiplier"]),
        int(values["x_zero_point"]) + x.shift,
        lo - zero_point,
        hi - zero_point,
        zero_point + y.shift,
    )
    _map(lowering, node, "requantize", x, y, numbers=numbers)


def clamp(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower a clamp_i8 that joins no other operator."""
    values = arguments(node)
    x, y = lowering.strided(values["x"]), lowering.new_integer(node)
    bounds = (int(values["lo"]) + x.shift, int(values["hi"]) + x.shift)
    _map(lowering, node, "clamp", x, y, numbers=(1.0, 0, *bounds, 0))


def table(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower table_i8. In memory an index is 0..255 whatever the dtype was."""
    values = arguments(node)
    x, y = lowering.strided(values["x"]), lowering.new_integer(node)
    name = lowering.stored(values["table"])
    entries = lowering.plan.parameter("table", tensor=name, shift=y.shift)
    _map(lowering, node, "table", x, y, table=entries)


def _map(
    lowering: Lowering,
    node: torch.fx.Node,
    operator: str,
    x: Value,
    y: Value,
    **options: object,
) -> None:
    nest = loop_nest(y.layout.shape, x.layout.steps, y.layout.steps, inner=1)
    if nest is None:
        # More axes than the kernel's loops: in y the last axis alone has gaps.
        x = _expanded(lowering, x, y, node)
        nest = as_two_axes(y.layout.shape, x.layout, y.layout, inner=1)
    emit_map(lowering.plan, operator, x, y, nest, lowering.label(node), **options)  # type: ignore[arg-type]

"""Operators that only move quantized values.

What an operator moves is found by running it on the values' positions instead of the values; so one
function serves slice, permute, view, flatten, concatenation and the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.fx
from numpy.typing import NDArray

from planish.ir.errors import OperatorError
from planish.ir.signature import dtype_name

from ..copying import Offsets, copy_offsets, even_steps, offsets
from ..layout import Layout, dense_layout
from ..lowering import Lowering
from ..operators import is_bytes
from ..value import Value


def stored_output(lowering: Lowering, node: torch.fx.Node) -> Value:
    """Return a stored tensor, row-major in its own dtype, in the parameter memory."""
    parameter = lowering.plan.parameter("raw", tensor=lowering.stored(node))
    dtype = dtype_name(node.meta["val"].dtype)
    layout = dense_layout(lowering.shape(node), dtype)
    return Value(node.name, layout, "parameters", offset=parameter.offset, dense=True)


def move(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower any operator that moves values: run it on their positions."""
    inputs = [n for n in node.all_input_nodes if is_bytes(n)]
    sources = [lowering.strided(n) for n in inputs]
    if len({source.shift for source in sources}) != 1:
        raise OperatorError(f"{node.target} of uint8 with int8 tensors", where=lowering.label(node))
    starts = np.cumsum([0] + [int(np.prod(s.layout.shape)) for s in sources])
    numbered = {
        n: torch.arange(int(start), int(end)).reshape(tuple(source.layout.shape))
        for n, source, start, end in zip(inputs, sources, starts, starts[1:], strict=False)
    }
    taken = _run_on(lowering, node, numbered).numpy()
    if len(sources) == 1 and _see(lowering, node, sources[0], taken):
        return
    target = lowering.new_integer(node)
    y = offsets(target.layout)
    for source, start, end in zip(sources, starts, starts[1:], strict=False):
        mine = (taken >= start) & (taken < end)
        if not mine.any():
            continue
        x = offsets(source.layout).ravel()
        box = bounding_box(mine)
        if mine[box].all():
            moved = x[taken[box] - start]
            copy_offsets(lowering.plan, source, target, moved, y[box], lowering.label(node))
        else:
            copy_offsets(
                lowering.plan, source, target, x[taken[mine] - start], y[mine], lowering.label(node)
            )


def _see(lowering: Lowering, node: torch.fx.Node, source: Value, taken: Offsets) -> bool:
    """Let a node's value be a view of its source if the moved values step evenly there."""
    even = even_steps(offsets(source.layout).ravel()[taken]) if taken.size else None
    if even is None:
        return False
    layout = source.layout
    if taken.shape == layout.shape and np.array_equal(taken.ravel(), np.arange(taken.size)):
        lowering.values[node] = source
        return True
    base, steps = even
    seen = Layout(taken.shape, steps, base, layout.size, layout.dtype)
    lowering.values[node] = source.view(node.name, seen)
    return True


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box that holds every True."""
    bounds = [
        np.nonzero(mask.any(tuple(a for a in range(mask.ndim) if a != axis)))[0]
        for axis in range(mask.ndim)
    ]
    return tuple(slice(int(b[0]), int(b[-1]) + 1) for b in bounds)


# Operators that torch has for real numbers only; positions are exact there below 2**53.
_REAL_ONLY = (
    torch.ops.aten.upsample_nearest2d.default,
    torch.ops.aten.reflection_pad2d.default,
    torch.ops.aten.replication_pad2d.default,
)


def _run_on(
    lowering: Lowering, node: torch.fx.Node, numbered: dict[torch.fx.Node, torch.Tensor]
) -> torch.Tensor:
    """Run a node on other inputs; sizes that the graph computes are known by now."""

    def known(argument: torch.fx.Node) -> Any:
        if argument in numbered:
            return numbered[argument].double() if real else numbered[argument]
        if argument.op == "get_attr":
            return lowering.graph.attribute(str(argument.target)).cpu()
        return int(argument.meta["val"])

    real = node.target in _REAL_ONLY
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), known)
    target: Any = node.target
    return target(*args, **kwargs).to(torch.int64)

"""Operands and results of matrix products, on whatever they are computed."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.fx

from planish.ir.ops import arguments

from ..layout import Layout, as_rows, row_layout
from ..lowering import Lowering
from ..plan import Parameter, Plan
from ..value import Value

_matmul_dq = torch.ops.planish.matmul_dq.default
_permute = torch.ops.aten.permute.default


def is_real(node: torch.fx.Node) -> bool:
    """Whether a product's result is float32."""
    return node.target is _matmul_dq


def right_operand(lowering: Lowering, node: torch.fx.Node) -> tuple[Value, str]:
    """Return b, and which of its last two axes lies side by side: "k" or "n"."""
    value = lowering.strided(node)
    if as_rows(value.layout) is None and 1 in (value.layout.steps[-2], value.layout.shape[-2]):
        return value, "k"
    return lowering.row_major(node), "n"


def result_layout(lowering: Lowering, node: torch.fx.Node, width: int) -> Layout:
    """Return rows of whole blocks.

    Attention's result [images, heads, tokens, width] lies in the order that its readers ask for,
    [images, tokens, heads, width] say: then bringing the heads of a token together moves nothing.
    """
    shape, dtype = lowering.shape(node), lowering.plan.target.storage_dtype
    users = list(lowering.fusion.last(node).users)
    orders = {tuple(arguments(u)["dims"]) for u in users if u.target is _permute}
    if len(orders) == 1 and all(u.target is _permute for u in users) and shape[-1] % width == 0:
        order = [axis % len(shape) for axis in orders.pop()]
        if order[-1] == len(shape) - 1:
            layout = row_layout(tuple(shape[axis] for axis in order), dtype)
            steps = [layout.steps[order.index(axis)] for axis in range(len(shape))]
            return replace(layout, shape=shape, steps=tuple(steps))
    return row_layout(shape, dtype, width)


def seen_from(layout: Layout, batch: tuple[int, ...]) -> list[int]:
    """Return [base, steps] of a layout's matrices, seen from all products."""
    own = layout.shape[:-2]
    missing = len(batch) - len(own)
    steps = [
        0 if axis < missing or own[axis - missing] == 1 else layout.steps[axis - missing]
        for axis in range(len(batch))
    ]
    return [layout.base, *steps]


def table_of(plan: Plan, batch: tuple[int, ...], maps: list[list[int]]) -> Parameter:
    """Return the table of one column a map, one row a matrix of the batch."""
    if not batch:
        batch, maps = (1,), [[*m, 0] for m in maps]
    return plan.parameter("affine", counts=list(batch), maps=maps)

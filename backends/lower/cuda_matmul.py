"""matmul_i8 and matmul_dq on a GPU: one kernel, which packs nothing."""

from __future__ import annotations

from math import prod

import torch.fx

from planish.ir.ops import arguments

from ..kernels import Kernel
from ..layout import Layout
from ..lowering import Lowering
from .products import is_real, result_layout, right_operand, seen_from, table_of

# Bytes that a word has, and what rows in memory are padded to.
WORD, PADDING = 4, 8


def multiply(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower a product; the axes before the last two broadcast without a copy."""
    values = arguments(node)
    plan, real = lowering.plan, is_real(node)
    a = lowering.row_major(values["a"])
    b, beside = right_operand(lowering, values["b"])
    y = (
        lowering.new_dense(node)
        if real
        else lowering.new_integer(node, result_layout(lowering, node, PADDING))
    )
    *batch, rows, columns = y.layout.shape
    depth = a.layout.shape[-1]
    kernel = Kernel.of(
        "cuda-matmul",
        products=prod(batch),
        sizes=(rows, columns, depth),
        a_row=a.layout.steps[-2],
        b_steps=b.layout.steps[-2:],
        y_row=y.layout.steps[-2],
        words=(_in_words(a.layout, -1), beside == "k" and _in_words(b.layout, -2)),
        real=real,
    )
    maps = [seen_from(v.layout, tuple(batch)) for v in (a, b, y)]
    lo, hi = (0, 0) if real else lowering.fusion.bounds(node)
    zero_point = int(values.get("y_zero_point", 0))
    zeros = [int(values[f"{s}_zero_point"]) + v.shift for s, v in (("a", a), ("b", b))]
    plan.call(
        kernel,
        [a, b, y, table_of(plan, tuple(batch), maps)],
        [
            float(values["multiplier"]),
            lo - zero_point,
            hi - zero_point,
            zero_point + y.shift,
            *zeros,
        ],
        lowering.label(node),
        macs=prod(y.layout.shape) * depth,
    )


def _in_words(layout: Layout, axis: int) -> bool:
    """Whether the values along an axis are whole words in memory, wherever a row of them begins."""
    axis %= len(layout.shape)
    others = [
        step
        for i, (size, step) in enumerate(zip(layout.shape, layout.steps, strict=True))
        if i != axis and size > 1
    ]
    beside = layout.steps[axis] == 1 and layout.shape[axis] % WORD == 0
    return beside and layout.base % WORD == 0 and all(step % WORD == 0 for step in others)

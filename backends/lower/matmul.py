"""matmul_i8 and matmul_dq: b is packed, then multiplied; leading axes broadcast without a copy."""

from __future__ import annotations

from math import prod

import numpy as np
import torch.fx

from planish.ir.ops import arguments

from ..kernels import Kernel
from ..kernels.instructions import INSTRUCTIONS
from ..layout import Layout, dense_layout
from ..lowering import Lowering
from ..plan import Parameter, Plan
from ..value import Value, scratch
from .cuda_matmul import multiply
from .dot_product import CHUNK_BYTES, PARALLEL_MACS, Blocks, choose_pixels, narrow_blocks
from .products import is_real, result_layout, right_operand, seen_from, table_of


def matmul(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower matmul_i8, and matmul_dq, whose result is dense float32."""
    if lowering.plan.target.capability is not None:
        multiply(lowering, node)
        return
    values = arguments(node)
    plan, label = lowering.plan, lowering.label(node)
    a = lowering.row_major(values["a"])
    b, beside = right_operand(lowering, values["b"])
    *_, n_rows, depth = a.layout.shape
    columns = b.layout.shape[-1]
    blocks = _choose_blocks(columns, plan)
    real = is_real(node)
    y = (
        lowering.new_dense(node)
        if real
        else lowering.new_integer(node, result_layout(lowering, node, blocks.width))
    )
    batch = y.layout.shape[:-2]
    parallel = plan.parallel(prod(y.layout.shape) * depth, PARALLEL_MACS)
    a_zero, b_zero = (int(values[f"{s}_zero_point"]) + v.shift for s, v in (("a", a), ("b", b)))
    dot = INSTRUCTIONS[plan.target.instruction]
    moved = 128 if dot.weight == "int8" else b_zero
    delta = moved - b_zero
    numbers = (moved, delta, dot.shift - a_zero, -delta * dot.shift * depth)
    packed, column_terms = _pack(plan, b, beside, blocks, parallel, numbers, label)
    row_terms = _row_terms(plan, a, moved - b_zero, parallel, label) if moved != b_zero else None
    rows = choose_pixels(n_rows, blocks, plan)
    tiles, n_blocks = -(-n_rows // rows), -(-columns // blocks.width)
    chunks = (
        -(-n_rows * depth * np.dtype(a.layout.dtype).itemsize // CHUNK_BYTES) if n_blocks > 1 else 1
    )
    if parallel:
        chunks = max(chunks, -(-3 * plan.threads // (prod(batch) * n_blocks)))
    chunk_tiles = -(-tiles // chunks)
    maps = [seen_from(layout, batch) for layout in (a.layout, y.layout)]
    maps += [seen_from(_numbered(v.layout), batch) for v in (a, b)]
    lo, hi = (0, 0) if real else lowering.fusion.bounds(node)
    zero_point = int(values.get("y_zero_point", 0))
    plan.call(
        Kernel.of(
            "matmul",
            instruction=plan.target.instruction,
            lanes=blocks.lanes,
            vectors=blocks.vectors,
            rows=rows,
            row_terms=row_terms is not None,
            real=real,
            partial=real and columns % blocks.width != 0,
            parallel=parallel,
        ),
        [a, packed, column_terms, row_terms or column_terms, y, table_of(plan, batch, maps)],
        [
            prod(batch),
            -(-tiles // chunk_tiles),
            chunk_tiles,
            n_blocks,
            columns,
            n_rows,
            -(-depth // dot.group),
            a.layout.steps[-2],
            y.layout.steps[-2],
            float(values["multiplier"]),
            lo - zero_point,
            hi - zero_point,
            zero_point + y.shift,
        ],
        label,
        macs=prod(y.layout.shape) * depth,
    )


def _choose_blocks(columns: int, plan: Plan) -> Blocks:
    width = plan.target.tile[1]
    lanes = min(plan.target.lanes, width)
    if columns <= 8 < width:
        return narrow_blocks(0, columns, plan)
    return Blocks(0, columns, lanes, width // lanes)


def _numbered(layout: Layout) -> Layout:
    """Return the layout of the matrices' numbers."""
    ones = (*layout.shape[:-2], 1, 1)
    return dense_layout(ones, layout.dtype)


def _matrices(plan: Plan, layout: Layout) -> tuple[Parameter, int]:
    """Return the table of where a tensor's matrices begin, and their number."""
    batch = layout.shape[:-2]
    return table_of(plan, batch, [[layout.base, *layout.steps[:-2]]]), prod(batch)


def _pack(
    plan: Plan,
    b: Value,
    beside: str,
    blocks: Blocks,
    parallel: bool,
    numbers: tuple[int, int, int, int],
    label: str,
) -> tuple[Value, Value]:
    """Emit the packing of b; return packed b and its columns' terms."""
    instruction = INSTRUCTIONS[plan.target.instruction]
    depth, columns = b.layout.shape[-2:]
    table, matrices = _matrices(plan, b.layout)
    n_blocks = -(-columns // blocks.width)
    size = matrices * n_blocks * blocks.width
    steps = -(-depth // instruction.group)
    packed = scratch(f"{b.name}_packed", size * steps * instruction.group, instruction.weight)
    terms = scratch(f"{b.name}_terms", size, "int32")
    kernel = Kernel.of(
        "matmul-pack",
        instruction=plan.target.instruction,
        lanes=blocks.lanes,
        vectors=blocks.vectors,
        beside=beside,
        parallel=parallel,
    )
    k_step, n_step = b.layout.steps[-2:]
    plan.call(
        kernel,
        [b, packed, terms, table],
        [matrices, n_blocks, columns, depth, k_step, n_step, *numbers],
        label,
    )
    return packed, terms


def _row_terms(plan: Plan, a: Value, factor: int, parallel: bool, label: str) -> Value:
    n_rows, depth = a.layout.shape[-2:]
    table, matrices = _matrices(plan, a.layout)
    terms = scratch(f"{a.name}_sums", matrices * n_rows, "int32")
    plan.call(
        Kernel.of("matmul-row-sums", storage=a.layout.dtype, parallel=parallel),
        [a, terms, table],
        [matrices, n_rows, depth, a.layout.steps[-2], factor],
        label,
    )
    return terms

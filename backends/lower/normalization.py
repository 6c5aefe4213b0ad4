"""softmax_i8, layer_norm_i8, mean_i8: operators that read whole axes of any layout."""

from __future__ import annotations

from math import prod

import torch.fx

from planish.ir.ops import arguments

from ..copying import copy_reshaped
from ..kernels import Kernel
from ..layout import Layout, merge_last, row_layout
from ..lowering import Lowering
from ..plan import Parameter, Plan
from ..value import Value

# Below this many values (softmax: each is looked up twice) waking a thread doesn't pay.
PARALLEL_VALUES = 20_000


def row_family(name: str, plan: Plan) -> str:
    """Return the kernel family of a softmax or layer norm: on a GPU a block shares a row."""
    return name if plan.target.capability is None else f"cuda-{name}"


def _row_table(
    plan: Plan, x: Layout, y: Layout, x_axes: list[int], y_axes: list[int]
) -> tuple[Parameter, int]:
    """Return the table of where each row begins in x and y, and the number of rows."""
    counts = [x.shape[axis] for axis in x_axes]
    maps = [
        [layout.base, *(layout.steps[axis] for axis in axes)]
        for layout, axes in ((x, x_axes), (y, y_axes))
    ]
    if not counts:
        counts, maps = [1], [[*m, 0] for m in maps]
    return plan.parameter("affine", counts=counts, maps=maps), prod(counts)


def _bounds(lowering: Lowering, node: torch.fx.Node, y: Value) -> list[int]:
    """Return `lo`, `hi` and the zero point in memory, as `requantize` takes them."""
    lo, hi = lowering.fusion.bounds(node)
    zero_point = int(arguments(node)["y_zero_point"])
    return [lo - zero_point, hi - zero_point, zero_point + y.shift]


def softmax(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower softmax_i8."""
    values = arguments(node)
    x, y = lowering.strided(values["x"]), lowering.new_integer(node)
    plan, rank = lowering.plan, len(y.layout.shape)
    dim = int(values["dim"]) % rank if rank else 0
    outer = [axis for axis in range(rank) if axis != dim]
    table, rows = _row_table(plan, x.layout, y.layout, outer, outer)
    count = y.layout.shape[dim] if rank else 1
    x_step, y_step = (v.layout.steps[dim] if rank and count > 1 else 1 for v in (x, y))
    kernel = Kernel.of(
        row_family("softmax", plan),
        storage=y.layout.dtype,
        unit_x=x_step == 1,
        unit_y=y_step == 1,
        parallel=plan.parallel(rows * count, PARALLEL_VALUES) and rows > 1,
    )
    exponentials = plan.parameter("raw", tensor=lowering.stored(values["table"]))
    plan.call(
        kernel,
        [x, y, exponentials, table],
        [rows, count, x_step, y_step, float(values["multiplier"]), *_bounds(lowering, node, y)],
        lowering.label(node),
    )


def layer_norm(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower layer_norm_i8. Axes that are normalized together are brought side by side."""
    values = arguments(node)
    plan, label, axes = lowering.plan, lowering.label(node), int(values["axes"])
    given, y = lowering.row_major(values["x"]), lowering.new_integer(node)
    x_rows, y_rows = (merge_last(v.layout, axes) for v in (given, y))
    shape = y.layout.shape
    flat = row_layout(
        (*shape[: len(shape) - axes], prod(shape[len(shape) - axes :])), y.layout.dtype
    )
    if x_rows is None:
        x = Value(f"{given.name}_rows", flat, shift=given.shift)
        copy_reshaped(lowering.plan, given, x, label)
    else:
        x = given.view(given.name, x_rows)
    result = (
        Value(f"{y.name}_rows", flat, shift=y.shift) if y_rows is None else y.view(y.name, y_rows)
    )
    outer = list(range(len(shape) - axes))
    table, rows = _row_table(plan, x.layout, result.layout, outer, outer)
    count = result.layout.shape[-1]
    epsilon = int(values["epsilon"])
    plan.call(
        Kernel.of(
            row_family("layer-norm", plan),
            storage=y.layout.dtype,
            parallel=plan.parallel(rows * count, PARALLEL_VALUES) and rows > 1,
        ),
        [
            x,
            result,
            plan.parameter("raw", tensor=lowering.stored(values["gain"])),
            plan.parameter("raw", tensor=lowering.stored(values["offset"])),
            table,
        ],
        [
            rows,
            count,
            epsilon >> 31,
            epsilon & (2**31 - 1),
            int(values["x_zero_point"]) + x.shift,
            *_bounds(lowering, node, y),
        ],
        label,
    )
    if y_rows is None:
        copy_reshaped(lowering.plan, result, y, label)


def mean(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower mean_i8."""
    values = arguments(node)
    x, y = lowering.strided(values["x"]), lowering.new_integer(node)
    plan, rank = lowering.plan, len(x.layout.shape)
    summed = sorted({int(d) % rank for d in values["dim"]}) if values["dim"] else list(range(rank))
    kept = [axis for axis in range(rank) if axis not in summed]
    place = kept if values["keepdim"] else list(range(len(kept)))
    # Results that lie side by side in both are summed together.
    beside = [
        (axis, to)
        for axis, to in zip(kept, place, strict=True)
        if x.layout.shape[axis] > 1 and x.layout.steps[axis] == y.layout.steps[to] == 1
    ]
    lanes, blocks, size = 1, 1, 1
    if beside:
        size = x.layout.shape[beside[0][0]]
        padded = -(-size // 8) * 8
        most = plan.target.task_lanes
        lanes = next(n for n in (32, 16, 8, 4) if n <= most and padded % n == 0)
        blocks = padded // lanes
    outer = [pair for pair in zip(kept, place, strict=True) if pair not in beside]
    table, results = _row_table(
        plan, x.layout, y.layout, [axis for axis, _ in outer], [to for _, to in outer]
    )
    run = min(
        summed, key=lambda axis: (x.layout.shape[axis] == 1, x.layout.steps[axis]), default=None
    )
    length, run_step = (x.layout.shape[run], x.layout.steps[run]) if run is not None else (1, 1)
    parts = [axis for axis in summed if axis != run]
    counts = [x.layout.shape[axis] for axis in parts] or [1]
    steps = [x.layout.steps[axis] for axis in parts] or [0]
    count = length * prod(counts)
    plan.call(
        Kernel.of(
            "mean",
            storage=y.layout.dtype,
            lanes=lanes,
            unit_run=run_step == 1,
            parallel=plan.parallel(results * size * count, PARALLEL_VALUES)
            and results * blocks > 1,
        ),
        [x, y, table, plan.parameter("affine", counts=counts, maps=[[0, *steps]])],
        [
            results,
            blocks,
            prod(counts),
            length,
            run_step,
            -count * (int(values["x_zero_point"]) + x.shift),
            float(values["multiplier"]),
            *_bounds(lowering, node, y),
        ],
        lowering.label(node),
    )

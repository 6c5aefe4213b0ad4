"""max_pool2d_i8, avg_pool2d_i8, adaptive_avg_pool2d_i8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.fx

from planish.ir.ops import arguments

from ..kernels import Kernel
from ..lowering import Lowering
from ..plan import Pointer
from ..value import Value

# Below this many reads a pool takes less time than waking a thread.
PARALLEL_READS = 1_000_000


def channel_lanes(value: Value, largest: int) -> int:
    """Return how many channels to take at once: the most that divide the padded ones."""
    pixel = value.layout.pixel_steps[2]
    return next(lanes for lanes in (32, 16, 8, 4, 2, 1) if lanes <= largest and pixel % lanes == 0)


def _seen_positions(
    size: int, count: int, kernel: int, stride: int, before: int, dilation: int
) -> list[int]:
    """Return the row (or column) of each window's taps; ones outside become one inside."""
    positions: list[int] = []
    for window in range(count):
        taps = [window * stride - before + k * dilation for k in range(kernel)]
        inside = [tap for tap in taps if 0 <= tap < size] or [0]
        positions += [tap if 0 <= tap < size else inside[0] for tap in taps]
    return positions


def max_pool(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower max_pool2d_i8."""
    values = arguments(node)
    x, y = lowering.integer(values["x"]), lowering.new_integer(node)
    plan = lowering.plan
    x_image, x_row, x_pixel = x.layout.pixel_steps
    images, height, width, _ = y.layout.pixels
    top, left, _, _ = values["padding"]
    kernel, stride, dilation = values["kernel"], values["stride"], values["dilation"]
    _, in_height, in_width, _ = x.layout.pixels
    rows = _seen_positions(in_height, height, kernel[0], stride[0], top, dilation[0])
    columns = _seen_positions(in_width, width, kernel[1], stride[1], left, dilation[1])
    most = min(plan.target.vector_bits // 16, plan.target.task_lanes)
    lanes = min(channel_lanes(x, most), channel_lanes(y, 32))
    blocks = -(-y.layout.shape[1] // lanes)
    reads = images * height * width * kernel[0] * kernel[1] * y.layout.shape[1]
    plan.call(
        Kernel.of(
            "max-pool",
            storage=plan.target.storage_dtype,
            lanes=lanes,
            kernel=(int(kernel[0]), int(kernel[1])),
            parallel=plan.parallel(reads, PARALLEL_READS),
        ),
        [
            Pointer(x, x.layout.base),
            Pointer(y, y.layout.base),
            plan.parameter("entries", values=[row * x_row for row in rows]),
            plan.parameter("entries", values=[column * x_pixel for column in columns]),
        ],
        [images, height, width, blocks, x_image, *y.layout.pixel_steps],
        lowering.label(node),
    )


def average_pool(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower avg_pool2d_i8."""
    values = arguments(node)
    kernel, stride, padding = values["kernel"], values["stride"], values["padding"]
    sizes = lowering.shape(values["x"])[2:]
    windows = [
        [
            (
                max(i * stride[axis] - padding[axis], 0),
                min(i * stride[axis] - padding[axis] + kernel[axis], sizes[axis]),
            )
            for i in range(lowering.shape(node)[2 + axis])
        ]
        for axis in (0, 1)
    ]
    _average(lowering, node, windows, values)


def adaptive_average_pool(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower adaptive_avg_pool2d_i8: window i is floor(i * n / k) to ceil((i + 1) * n / k)."""
    values = arguments(node)
    sizes = lowering.shape(values["x"])[2:]
    windows = [
        [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        for size, count in zip(sizes, lowering.shape(node)[2:], strict=True)
    ]
    _average(lowering, node, windows, values)


def _average(
    lowering: Lowering,
    node: torch.fx.Node,
    windows: Sequence[Sequence[tuple[int, int]]],
    values: dict[str, Any],
) -> None:
    x, y = lowering.integer(values["x"]), lowering.new_integer(node)
    plan = lowering.plan
    images, height, width, channels = y.layout.pixels
    lo, hi = lowering.fusion.bounds(node)
    zero_point = int(values["y_zero_point"])
    multiplier = lowering.stored(values["multiplier"])
    most = min(8, plan.target.task_lanes)
    lanes = min(channel_lanes(x, most), channel_lanes(y, most))
    reads = channels * x.layout.pixels[0] * x.layout.pixels[1] * x.layout.pixels[2]
    tables = [
        plan.parameter(
            "entries", values=[e for start, end in axis for e in (start, max(start, end))]
        )
        for axis in windows
    ]
    plan.call(
        Kernel.of(
            "average-pool",
            storage=plan.target.storage_dtype,
            lanes=lanes,
            parallel=plan.parallel(reads, PARALLEL_READS),
        ),
        [
            Pointer(x, x.layout.base),
            Pointer(y, y.layout.base),
            plan.parameter("raw", tensor=multiplier),
            *tables,
        ],
        [
            images,
            height,
            width,
            -(-channels // lanes),
            *x.layout.pixel_steps,
            *y.layout.pixel_steps,
            int(values["x_zero_point"]) + x.shift,
            lo - zero_point,
            hi - zero_point,
            zero_point + y.shift,
        ],
        lowering.label(node),
    )

"""resize_i8 and pad_i8."""

from __future__ import annotations

import numpy as np
import torch.fx
import torch.nn.functional as F

from planish.ir.integer.resampling import RESIZE_BITS
from planish.ir.ops import arguments

from ..borders import padded_sides
from ..copying import copy_offsets, fill, fill_halo, offsets
from ..kernels import Kernel
from ..layout import Layout
from ..lowering import Lowering
from ..plan import Pointer
from .movement import bounding_box
from .pooling import channel_lanes

# Below this many results a resize takes less time than waking a thread.
PARALLEL_RESULTS = 200_000


def resize(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower resize_i8."""
    values = arguments(node)
    x, y = lowering.integer(values["x"]), lowering.new_integer(node)
    plan = lowering.plan
    images, height, width, channels = y.layout.pixels
    x_image, x_row, x_pixel = x.layout.pixel_steps
    lo, hi = lowering.fusion.bounds(node)
    zero_point = int(values["y_zero_point"])
    tables = []
    for name, weights, step in (
        ("rows", "row_weights", x_row),
        ("columns", "column_weights", x_pixel),
    ):
        read = lowering.graph.attribute(str(values[name].target)).cpu().numpy()
        entries = [int(entry) * step for entry in read.ravel()]
        tables.append(plan.parameter("entries", values=entries))
        tables.append(plan.parameter("raw", tensor=lowering.stored(values[weights])))
    most = min(8, plan.target.task_lanes)
    lanes = min(channel_lanes(x, most), channel_lanes(y, most))
    plan.call(
        Kernel.of(
            "resize",
            storage=plan.target.storage_dtype,
            lanes=lanes,
            parallel=plan.parallel(images * height * width * channels, PARALLEL_RESULTS),
        ),
        [Pointer(x, x.layout.base), Pointer(y, y.layout.base), *tables],
        [
            images,
            height,
            width,
            -(-channels // lanes),
            x_image,
            *y.layout.pixel_steps,
            float(np.float32(values["multiplier"])),
            -(int(values["x_zero_point"]) + x.shift) << (2 * RESIZE_BITS),
            lo - zero_point,
            hi - zero_point,
            zero_point + y.shift,
        ],
        lowering.label(node),
    )


def pad(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower pad_i8: a view of the input where its border holds the value, else a copy."""
    values = arguments(node)
    x = lowering.strided(values["x"])
    number = int(values["value"]) + x.shift
    sides = padded_sides(values["pad"], len(x.layout.shape))
    have, filled = lowering.border(x)
    if sides and filled == number and all(h >= s for h, s in zip(have, sides, strict=True)):
        top, left, _, _ = sides
        _, row, pixel = x.layout.pixel_steps
        base = x.layout.base - top * row - left * pixel
        shape = lowering.shape(node)
        wider = Layout(shape, x.layout.steps, base, x.layout.size, x.layout.dtype)
        lowering.values[node] = x.view(node.name, wider)
        return
    y = lowering.new_integer(node)
    fill(lowering.plan, y, number, lowering.label(node))
    border, held = lowering.border(y)
    if held != number and any(border):
        fill_halo(lowering.plan, y, held)
    numbers = torch.arange(int(np.prod(x.layout.shape))).reshape(x.layout.shape)
    taken = F.pad(numbers, [int(size) for size in values["pad"]], value=-1).numpy()
    inside = taken >= 0
    if inside.any():
        box = bounding_box(inside)
        moved = offsets(x.layout).ravel()[taken[box]]
        copy_offsets(lowering.plan, x, y, moved, offsets(y.layout)[box], lowering.label(node))

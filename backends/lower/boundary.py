"""Between float or user memory and the integer region: quantize, dequantize."""

from __future__ import annotations

import numpy as np
import torch.fx

from planish.ir.ops import arguments

from ..copying import PARALLEL_VALUES, emit_map
from ..kernels import Kernel
from ..layout import Layout, loops_over
from ..lowering import Lowering
from ..plan import Pointer
from ..value import Value


def quantize(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower quantize: float32, row-major, to the integer region."""
    values = arguments(node)
    x, y = lowering.dense(values["x"]), lowering.new_integer(node)
    zero_point = int(values["zero_point"])
    bounds = (int(values["lo"]) - zero_point, int(values["hi"]) - zero_point)
    scale = float(np.float32(values["scale"]))
    if _is_compact_image(y.layout, lowering.plan.target.lanes):
        _quantize_planes(lowering, x, y, (scale, *bounds, zero_point + y.shift), node)
        return
    # Of few channels (an image's), whole rows are read; of many, whole pixels are written.
    inner = 0 if y.layout.pixels[3] < 8 else 1
    loops = loops_over(y.layout.shape, x.layout, y.layout, inner=inner)
    numbers = (scale, 0, *bounds, zero_point + y.shift)
    emit_map(lowering.plan, "quantize", x, y, loops, lowering.label(node), numbers=numbers)


def _is_compact_image(layout: Layout, lanes: int) -> bool:
    """Whether pixels of at most 4 bytes lie side by side, at least a vector of them in a row."""
    channels = layout.pixels[3]
    compact = len(layout.shape) == 4 and layout.pixel_steps[2] == channels <= 4
    return compact and layout.shape[3] >= lanes


def _quantize_planes(
    lowering: Lowering,
    x: Value,
    y: Value,
    numbers: tuple[float, int, int, int],
    node: torch.fx.Node,
) -> None:
    images, height, width, channels = y.layout.pixels
    y_image, y_row, _ = y.layout.pixel_steps
    plan = lowering.plan
    values = images * height * width * channels
    kernel = Kernel.of(
        "quantize-planes",
        lanes=plan.target.lanes,
        pixels=(images, height, width),
        channels=channels,
        x_steps=x.layout.steps[:3],
        y_steps=(y_image, y_row),
        parallel=plan.parallel(values, PARALLEL_VALUES) and images * height > 1,
    )
    pointers = [Pointer(x, x.layout.base), Pointer(y, y.layout.base)]
    plan.call(kernel, pointers, numbers, lowering.label(node))


def dequantize(lowering: Lowering, node: torch.fx.Node) -> None:
    """Lower dequantize: from the integer region to float32, row-major."""
    values = arguments(node)
    x, y = lowering.walkable(values["q"]), lowering.new_dense(node)
    loops = loops_over(y.layout.shape, x.layout, y.layout, inner=1)
    numbers = (float(values["scale"]), int(values["zero_point"]) + x.shift, 0, 0, 0)
    emit_map(lowering.plan, "dequantize", x, y, loops, lowering.label(node), numbers=numbers)

"""Strategy: depthwise convolution on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from ..cuda.depthwise import GROUP, THREADS
from ..kernels import Kernel
from ..layer import Layer
from ..plan import Plan, Pointer
from .cuda_tiles import MULTIPROCESSORS, RATES
from .strategies import Knobs, Strategy

# Words of weights that a thread may keep in registers.
MOST_WEIGHTS = 64
# Dot products of a thread, written out: for twice as many NVIDIA's assembler takes minutes.
MOST_DOTS = 160


class CudaDepthwise(Strategy):
    """Layers whose every channel has its own filter."""

    def fits(self, layer: Layer, plan: Plan) -> bool:
        """One input and one output channel a group, nothing to add, bytes out, whole words."""
        height, width = layer.kernel
        steps = (*layer.x.layout.pixel_steps, *layer.y.layout.pixel_steps)
        return (
            plan.target.instruction in RATES
            and layer.groups > 1
            and layer.in_channels == 1
            and layer.out_channels == layer.groups
            and layer.residual is None
            and not layer.real
            and -(-height // GROUP) * GROUP * width <= MOST_WEIGHTS
            and gcd(*steps, *(m[0] for m in layer.pixel_maps())) % GROUP == 0
            and bool(layer.macs)
        )

    def knobs(self, layer: Layer, plan: Plan) -> Sequence[Knobs]:
        """Pixels of a thread, those of fewest reckoned cycles first."""
        del plan
        width = layer.y.layout.pixels[2]
        dots = -(-layer.kernel[0] // GROUP) * GROUP * layer.kernel[1]
        most = min(width, max(1, MOST_DOTS // dots))
        columns = [columns for columns in (1, 2, 4, 8) if columns <= most]
        return [{"columns": c} for c in sorted(columns, key=lambda c: (_cycles(layer, c), c))]

    def emit(self, layer: Layer, plan: Plan, knobs: Knobs) -> None:
        """Append the one launch."""
        words = -(-layer.out_channels // GROUP)
        x_map, y_map = layer.pixel_maps()
        kernel = Kernel.of(
            "cuda-depthwise",
            columns=int(knobs["columns"]),
            window=layer.kernel,
            stride=layer.stride,
            dilation=layer.dilation,
            counts=layer.y.layout.pixels[:3],
            words=words,
            x_steps=layer.x.layout.pixel_steps,
            y_steps=layer.y.layout.pixel_steps,
        )
        common = {"groups": 1, "lanes": GROUP, "channels": [0, layer.out_channels]}
        weights = plan.parameter("cuda-depthwise-words", **layer.weight_recipe)
        bias = plan.parameter(
            "dot-bias",
            **layer.weight_recipe,
            bias=layer.bias,
            x_zero_point=layer.x_zero_point,
            **common,
        )
        multiplier = plan.parameter("dot-multiplier", multiplier=layer.multiplier, **common)
        x, y = Pointer(layer.x, x_map[0]), Pointer(layer.y, y_map[0])
        bounds = [layer.lo + layer.zero_point, layer.hi + layer.zero_point, layer.zero_point]
        plan.call(kernel, [x, weights, bias, multiplier, y], bounds, layer.label)


def _cycles(layer: Layer, columns: int) -> float:
    """Reckon what a multiprocessor issues: a thread's instructions, for as many as it has.

    Too few threads leave it waiting for memory.
    """
    images, height, width, channels = layer.y.layout.pixels
    threads = images * height * -(-width // columns) * -(-channels // GROUP)
    kernel_rows, kernel_columns = layer.kernel
    groups = -(-kernel_rows // GROUP)
    reach = (columns - 1) * layer.stride[1] + (kernel_columns - 1) * layer.dilation[1] + 1
    read = reach * (kernel_rows + 8 * groups)
    dots = columns * kernel_columns * groups * GROUP
    each = read + dots + columns * 24 + kernel_columns * groups * GROUP + 40
    waiting = max(1.0, 8 * THREADS * MULTIPROCESSORS / threads)
    return threads * each * waiting

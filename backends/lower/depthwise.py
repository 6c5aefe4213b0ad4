"""Strategy: depthwise convolution, sixteen channels at a time."""

from __future__ import annotations

from collections.abc import Sequence

from ..kernels import Kernel
from ..plan import Plan
from .layer import Knobs, Layer, Strategy

# Below this a layer takes less time than waking a thread.
PARALLEL_MACS = 200_000


class Depthwise(Strategy):
    """Fits layers whose every channel has its own filter."""

    def fits(self, layer: Layer, plan: Plan) -> bool:
        """One input and one output channel a group, several groups, nothing to add, bytes out."""
        del plan
        return (
            layer.groups > 1
            and layer.in_channels == 1
            and layer.out_channels == layer.groups
            and layer.residual is None
            and not layer.real
            and layer.x.layout.pixel_steps[2] % 8 == 0
        )

    def knobs(self, layer: Layer, plan: Plan) -> Sequence[Knobs]:
        """No choice: the rules decide."""
        del layer, plan
        return [{}]

    def emit(self, layer: Layer, plan: Plan, knobs: Knobs) -> None:
        """Append the one kernel call."""
        del knobs
        images, height, width, channels = layer.y.layout.pixels
        n_pixels = images * height * width
        padded = -(-channels // 8) * 8
        block = 16 if padded >= 16 else 8
        starts = [min(start, padded - block) for start in range(0, padded, block)]
        pixels = 4 if n_pixels >= 4 else 1
        parallel = plan.parallel(layer.macs, PARALLEL_MACS)
        tiles = -(-n_pixels // pixels)
        chunks = -(-3 * plan.threads // len(starts)) if parallel else 1
        chunk_tiles = max(1, -(-tiles // chunks))
        _, row, pixel = layer.x.layout.pixel_steps
        taps = [
            i * layer.dilation[0] * row + j * layer.dilation[1] * pixel
            for i in range(layer.kernel[0])
            for j in range(layer.kernel[1])
        ]
        # The weight of the tap that makes the number even is zero.
        taps += taps[-1:] * (len(taps) % 2)
        common = {"block": block, "starts": starts}
        weights = plan.parameter("depthwise-weights", **layer.weight_recipe, **common)
        bias = plan.parameter(
            "depthwise-bias",
            **layer.weight_recipe,
            bias=layer.bias,
            x_zero_point=layer.x_zero_point,
            **common,
        )
        multiplier = plan.parameter("depthwise-multiplier", multiplier=layer.multiplier, **common)
        table = plan.parameter("affine", counts=[images, height, width], maps=layer.pixel_maps())
        storage = plan.target.storage_dtype
        plan.call(
            Kernel.of(
                "depthwise", storage=storage, channels=block, pixels=pixels, parallel=parallel
            ),
            [
                layer.x,
                weights,
                bias,
                multiplier,
                layer.y,
                table,
                plan.parameter("entries", values=taps),
                plan.parameter("entries", values=starts),
            ],
            [
                n_pixels,
                -(-tiles // chunk_tiles),
                chunk_tiles,
                len(starts),
                len(taps) // 2,
                layer.lo,
                layer.hi,
                layer.zero_point,
            ],
            layer.label,
        )

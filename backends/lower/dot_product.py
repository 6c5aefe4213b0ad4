"""Strategy: dense and grouped layers as an indirect matrix multiplication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..kernels import Kernel
from ..kernels.instructions import INSTRUCTIONS
from ..layer import Layer
from ..plan import Parameter, Plan, Pointer
from .strategies import Knobs, Strategy

# Below this a layer takes less time than waking a thread.
PARALLEL_MACS = 400_000
# Input bytes that a chunk of pixels may touch, so that they stay in the cache for all blocks.
CHUNK_BYTES = 192 * 1024


@dataclass(frozen=True)
class Blocks:
    """Output channels that one kernel call computes: `count` from `first` of each group."""

    first: int
    count: int
    lanes: int
    vectors: int

    @property
    def width(self) -> int:
        """Channels of a block."""
        return self.lanes * self.vectors


def narrow_blocks(first: int, count: int, plan: Plan) -> Blocks:
    """Return blocks of 8 channels: activations are padded to multiples of them."""
    lanes = min(plan.target.lanes, 8)
    return Blocks(first, count, lanes, 8 // lanes)


def split_channels(layer: Layer, plan: Plan) -> list[Blocks]:
    """Choose blocks of output channels: the target's tile, then 8 wide for the rest."""
    count = layer.out_channels // layer.groups
    width = plan.target.tile[1]
    lanes = min(plan.target.lanes, width)
    if layer.groups > 1:
        if count % width == 0:
            return [Blocks(0, count, lanes, width // lanes)]
        return [narrow_blocks(0, count, plan)]
    full = count // width * width
    parts = [Blocks(0, full, lanes, width // lanes)] if full else []
    if count - full:
        rest = count - full
        parts.append(
            Blocks(full, rest, lanes, width // lanes)
            if -(-rest // 8) * 8 == width
            else narrow_blocks(full, rest, plan)
        )
    return parts


def choose_pixels(n_pixels: int, blocks: Blocks, plan: Plan) -> int:
    """Choose how many pixels a tile has: few wasted ones, and many that share a weight."""
    most = plan.target.tile[0] if blocks.width == plan.target.tile[1] else 8
    sizes = [size for size in {most, most - 1, 4, 2, 1} if 1 <= size <= min(most, n_pixels)]
    return min(sizes, key=lambda size: (-(-n_pixels // size) * (size + 1.5), -size))


class DotProduct(Strategy):
    """Fits every layer."""

    def fits(self, layer: Layer, plan: Plan) -> bool:
        """Any layer on any target with a dot-product instruction."""
        return plan.target.instruction in INSTRUCTIONS and bool(layer.out_channels)

    def knobs(self, layer: Layer, plan: Plan) -> Sequence[Knobs]:
        """No choice: the rules decide."""
        del layer, plan
        return [{}]

    def emit(self, layer: Layer, plan: Plan, knobs: Knobs) -> None:
        """One kernel call for each width of block."""
        del knobs
        for blocks in split_channels(layer, plan):
            _emit_blocks(layer, blocks, plan)


def _emit_blocks(layer: Layer, blocks: Blocks, plan: Plan) -> None:
    images, height, width, _ = layer.y.layout.pixels
    n_pixels = images * height * width
    pixels = choose_pixels(n_pixels, blocks, plan)
    group_blocks = -(-blocks.count // blocks.width)
    n_blocks = group_blocks * layer.groups
    parallel = plan.parallel(layer.macs, PARALLEL_MACS)
    tiles = -(-n_pixels // pixels)
    chunk_tiles = _chunk_tiles(layer, tiles, n_blocks, plan.threads if parallel else 1)
    run_table, n_runs, steps = _runs(layer, plan)
    residual = layer.residual
    kernel = Kernel.of(
        "dot-product",
        instruction=plan.target.instruction,
        lanes=blocks.lanes,
        vectors=blocks.vectors,
        pixels=pixels,
        residual=residual is not None,
        grouped=layer.groups > 1,
        # Vectors may write past a layer's last channel, but not into the next group's.
        partial=layer.groups > 1 and blocks.count % blocks.width != 0,
        parallel=parallel,
        **({"real": True} if layer.real else {}),
    )
    other = residual.other if residual else layer.x
    table = plan.parameter("affine", counts=[images, height, width], maps=layer.pixel_maps())
    weights, bias, multiplier = _parameters(layer, blocks, plan)
    plan.call(
        kernel,
        [
            layer.x,
            weights,
            bias,
            multiplier,
            Pointer(layer.y, blocks.first),
            Pointer(other, blocks.first if residual else 0),
            table,
            run_table,
        ],
        [n_pixels, -(-tiles // chunk_tiles), chunk_tiles, n_blocks, group_blocks]
        + [layer.in_channels, layer.out_channels // layer.groups, n_runs, steps, blocks.count]
        + [layer.lo, layer.hi, layer.zero_point]
        + (
            [
                residual.self_factor,
                residual.other_factor,
                -layer.zero_point * residual.self_factor
                - residual.other_zero_point * residual.other_factor,
                residual.scale,
                residual.lo,
                residual.hi,
                residual.zero_point,
            ]
            if residual
            else [0, 0, 0, 0.0, 0, 0, 0]
        ),
        layer.label,
        macs=layer.macs * layer.groups * blocks.count // layer.out_channels,
    )


def _chunk_tiles(layer: Layer, tiles: int, n_blocks: int, threads: int) -> int:
    """Return how many tiles one task takes before it goes on to the next block of channels."""
    x = layer.x
    chunks = -(-x.nbytes // CHUNK_BYTES) if n_blocks > 1 else 1
    if threads > 1:
        chunks = max(chunks, -(-3 * threads // n_blocks))
    return max(1, -(-tiles // chunks))


def _is_merged(layer: Layer) -> bool:
    """Whether a kernel row is one run of neighbouring activations."""
    return layer.groups == 1 and (layer.kernel[1] == 1 or layer.dilation[1] == 1)


def _runs(layer: Layer, plan: Plan) -> tuple[Parameter, int, int]:
    """Return the table of runs, their number, and the steps of one run."""
    _, row, pixel = layer.x.layout.pixel_steps
    height, width = layer.kernel
    neighbours = INSTRUCTIONS[plan.target.instruction].group
    down, right = row * layer.dilation[0], pixel * layer.dilation[1]
    if _is_merged(layer):
        table = plan.parameter("affine", counts=[height], maps=[[0, down]])
        length = (width - 1) * pixel + layer.in_channels
        return table, height, -(-length // neighbours)
    table = plan.parameter("affine", counts=[height, width], maps=[[0, down, right]])
    return table, height * width, -(-layer.in_channels // neighbours)


def _parameters(layer: Layer, blocks: Blocks, plan: Plan) -> tuple[Parameter, Parameter, Parameter]:
    instruction = INSTRUCTIONS[plan.target.instruction]
    common = {
        "groups": layer.groups,
        "lanes": blocks.width,
        "channels": [blocks.first, blocks.count],
    }
    weights = plan.parameter(
        "dot-weights",
        **layer.weight_recipe,
        merged_pixel=layer.x.layout.pixel_steps[2] if _is_merged(layer) else 0,
        **instruction.packing(blocks.lanes),
        **common,
    )
    bias = plan.parameter(
        "dot-bias",
        **layer.weight_recipe,
        bias=layer.bias,
        x_zero_point=layer.x_zero_point - instruction.shift,
        **common,
    )
    multiplier = plan.parameter("dot-multiplier", multiplier=layer.multiplier, **common)
    return weights, bias, multiplier

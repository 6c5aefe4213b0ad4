"""Strategy: dense layers directly, all geometry fixed at compile time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ..kernels import Kernel
from ..kernels.instructions import INSTRUCTIONS, Instruction
from ..layer import Layer
from ..plan import Plan, Pointer
from .geometry import Geometry, find_geometry, run_steps
from .strategies import Knobs, Strategy, find_ending

# Below this a layer takes less time than waking a thread.
PARALLEL_MACS = 400_000
# Tiles (rows, columns, vectors) with a layer's cycles, the fewest first.
Reckoned = list[tuple[float, tuple[int, int, int]]]
# How many of the best settings are worth measuring.
OFFERED = 12


@dataclass(frozen=True)
class Part:
    """Blocks of output channels that one kernel call computes.

    Attributes:
        first: First output channel.
        count: Output channels.
        blocks: Blocks.
        vectors: Vectors of a block.
        narrow: Whether the last vector has half its lanes.
    """

    first: int
    count: int
    blocks: int
    vectors: int
    narrow: bool


def split_channels(channels: int, lanes: int, vectors: int) -> list[Part]:
    """Return blocks of `vectors` vectors, then one block of what is left.

    Channels are stored in eights. A vector that holds none but padding, of which ARM's four lanes
    may leave one, is not computed: nobody reads what is there.
    """
    stored = -(-channels // 8) * 8
    total = -(-channels // lanes)
    narrow = 0 < stored - (total - 1) * lanes <= lanes // 2
    full, rest = divmod(total, vectors)
    parts: list[Part] = []
    if full:
        count = min(channels, full * vectors * lanes)
        parts.append(Part(0, count, full, vectors, narrow and not rest))
    if rest:
        first = full * vectors * lanes
        parts.append(Part(first, channels - first, 1, rest, narrow))
    return parts


def tile_cycles(dot: Instruction, pixels: int, vectors: int, steps: int) -> float:
    """Return the cycles of one tile: its steps, then the results.

    A result takes about four, and two more where its sum is spread over lanes. Of more than 24 sums
    the results leave no registers for the next tile to begin beside them (measured: 5 %).
    """
    results = pixels * vectors
    crowded = 1.06 if results * dot.parts > 24 else 1
    ending = results * (4 if dot.parts == 1 else 6) + 12
    return (steps * step_cycles(dot, pixels, vectors) + ending) * crowded


def step_cycles(dot: Instruction, pixels: int, vectors: int) -> float:
    """Return the cycles of one step: two multiplications and two loads each.

    A sum waits four cycles for its last addition. On ARM, where a step reads several groups, also
    at most four instructions a cycle, and one `smlal` (Cortex-A76 Software Optimization Guide,
    section 3.15).
    """
    if dot.operands is None:
        return max(pixels * vectors / 2, (pixels + vectors) / 2, 4)
    groups = dot.reads // dot.group
    pixels += -pixels % dot.pixels
    multiplications = groups * pixels * vectors * dot.parts
    issued = multiplications * dot.issued
    # The activations of several pixels come into a register one by one.
    loads = pixels * (groups if dot.pixels > 1 else 1)
    loads += _vectors_of_weights(dot) * vectors
    moved = pixels if dot.order == "neighbours" or dot.shift else 0
    cycles = max(
        multiplications * dot.alone,
        issued / 2,
        loads / 2,
        (issued + loads + moved) / 4,
        4 * groups,
    )
    return cycles + loads / 1024  # of equal tiles the one that loads least for its work


def _vectors_of_weights(dot: Instruction) -> int:
    """Return how many registers of 128 bits hold a step's weights for four channels."""
    return 4 * dot.reads * np.dtype(dot.weight).itemsize // 16


def best_knobs(found: Reckoned) -> list[Knobs]:
    """Return the first tiles as knobs, as many as are offered."""
    return [{"rows": r, "columns": c, "vectors": v} for _, (r, c, v) in found[:OFFERED]]


class Direct(Strategy):
    """Layers of one group without gaps between a kernel row's activations."""

    def fits(self, layer: Layer, plan: Plan) -> bool:
        """Bytes out; a kernel row is one run of neighbours."""
        return (
            plan.target.instruction in INSTRUCTIONS
            and layer.groups == 1
            and not layer.real
            and (layer.kernel[1] == 1 or layer.dilation[1] == 1)
            and bool(layer.macs)
        )

    def instruction(self, plan: Plan) -> str:
        """The instruction that multiplies."""
        return plan.target.instruction

    def knobs(self, layer: Layer, plan: Plan) -> Sequence[Knobs]:
        """Tiles, the one of fewest reckoned cycles first."""
        return best_knobs(self.reckoned(layer, plan))

    def reckoned(self, layer: Layer, plan: Plan) -> Reckoned:
        """Return every tile that fits with the layer's cycles, the fewest first."""
        geometry = find_geometry(layer)
        dot = INSTRUCTIONS[self.instruction(plan)]
        steps = run_steps(layer, dot.reads)
        found: Reckoned = []
        for rows, columns, vectors in product((1, 2, 3, 4), range(1, 17), range(1, 9)):
            pixels = rows * columns
            if rows > geometry.lines or columns > geometry.length:
                continue
            if not dot.fits(pixels, vectors, plan.target.registers, steps):
                continue
            tile = (rows, columns, vectors)
            found.append((_layer_cycles(layer, plan, geometry, tile, dot), tile))
        return sorted(found)

    def emit(self, layer: Layer, plan: Plan, knobs: Knobs) -> None:
        """One kernel call for the blocks of full width, one for what is left."""
        wanted = (int(knobs["rows"]), int(knobs["columns"]))
        for part in split_channels(layer.out_channels, plan.target.lanes, int(knobs["vectors"])):
            _emit_part(layer, part, wanted, plan, self.instruction(plan))


def _layer_cycles(
    layer: Layer, plan: Plan, geometry: Geometry, tile: tuple[int, int, int], dot: Instruction
) -> float:
    rows, columns, vectors = tile
    steps = layer.kernel[0] * run_steps(layer, dot.reads)
    tiles = geometry.images * -(-geometry.lines // rows) * -(-geometry.length // columns)
    parts = split_channels(layer.out_channels, plan.target.lanes, vectors)
    return tiles * sum(
        part.blocks * tile_cycles(dot, rows * columns, part.vectors, steps) for part in parts
    )


def tiles_of_a_task(geometry: Geometry, tile: tuple[int, int], blocks: int, threads: int) -> int:
    """Return how many tiles a task takes before the next block of channels.

    All of them: the caches' prefetching serves whole images best. Only threads need more tasks.
    """
    tiles = -(-geometry.lines // tile[0]) * -(-geometry.length // tile[1])
    chunks = -(-4 * threads // (blocks * geometry.images)) if threads > 1 else 1
    return -(-tiles // chunks)


def _emit_part(
    layer: Layer, part: Part, tile: tuple[int, int], plan: Plan, instruction: str
) -> None:
    dot = INSTRUCTIONS[instruction]
    geometry = find_geometry(layer)
    rows, columns = tile
    parallel = plan.parallel(layer.macs, PARALLEL_MACS)
    _, row, pixel = layer.x.layout.pixel_steps
    residual = layer.residual
    kernel = Kernel.of(
        "direct",
        instruction=instruction,
        lanes=plan.target.lanes,
        tile=(rows, columns, part.vectors),
        pixels=(geometry.images, geometry.lines, geometry.length),
        x_steps=geometry.x,
        y_steps=geometry.y,
        other_steps=geometry.other,
        window=(layer.kernel[0], run_steps(layer, dot.reads), row * layer.dilation[0]),
        blocks=part.blocks,
        chunk=tiles_of_a_task(geometry, tile, part.blocks, plan.threads if parallel else 1),
        narrow=part.narrow,
        **find_ending(layer, plan),
        parallel=parallel,
    )
    width = part.vectors * plan.target.lanes
    common = {"groups": 1, "lanes": width, "channels": [part.first, part.count]}
    weights = plan.parameter(
        "dot-weights",
        **layer.weight_recipe,
        merged_pixel=pixel,
        **dot.packing(plan.target.lanes),
        **({"reads": dot.reads} if dot.reads != dot.group else {}),
        **common,
    )
    bias = plan.parameter(
        "dot-bias",
        **layer.weight_recipe,
        bias=layer.bias,
        x_zero_point=layer.x_zero_point - dot.shift,
        **common,
    )
    multiplier = plan.parameter("dot-multiplier", multiplier=layer.multiplier, **common)
    y = Pointer(layer.y, geometry.y_base + part.first)
    other = (
        Pointer(residual.other, geometry.other_base + part.first) if residual else Pointer(layer.x)
    )
    plan.call(
        kernel,
        [Pointer(layer.x, geometry.x_base), weights, bias, multiplier, y, other],
        layer.epilogue,
        layer.label,
    )

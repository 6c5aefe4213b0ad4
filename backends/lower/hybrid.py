"""Strategy: dense layers by `vpmaddubsw` where the weights prove it exact."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels import Kernel
from ..layer import Layer
from ..packing_hybrid import block_quads
from ..plan import Plan, Pointer
from .direct import PARALLEL_MACS, Part, split_channels, tiles_of_a_task
from .geometry import Geometry, find_geometry, run_steps
from .quads import Quads, classify
from .strategies import Knobs, Strategy, find_ending

# How many of the best settings are worth measuring.
OFFERED = 8
# Blocks that are looked at to reckon a setting.
SAMPLE = 3
# Registers beside sums and weights: two broadcasts or their halves, a product, constants.
TEMPORARIES = 5


class Hybrid(Strategy):
    """Layers of one group on processors without VNNI."""

    def fits(self, layer: Layer, plan: Plan) -> bool:
        """Bytes out; a kernel row is one run of neighbours."""
        return (
            plan.target.instruction == "vpmaddwd"
            and layer.groups == 1
            and not layer.real
            and (layer.kernel[1] == 1 or layer.dilation[1] == 1)
            and bool(layer.macs)
            and layer.kernel[0] * run_steps(layer, 4) < 1 << 16
        )

    def knobs(self, layer: Layer, plan: Plan) -> Sequence[Knobs]:
        """Tiles, the one of fewest reckoned cycles first."""
        geometry = find_geometry(layer)
        found: list[tuple[float, tuple[int, int, int]]] = []
        for vectors in (1, 2):
            shares = _class_shares(layer, plan, vectors)
            for rows, columns in product((1, 2), range(1, 17)):
                if rows > geometry.lines or columns > geometry.length:
                    continue
                if rows * columns * vectors + 2 * vectors + TEMPORARIES > plan.target.registers:
                    continue
                tile = (rows, columns, vectors)
                found.append((_layer_cycles(layer, plan, geometry, tile, shares), tile))
        found.sort()
        return [{"rows": r, "columns": c, "vectors": v} for _, (r, c, v) in found[:OFFERED]]

    def emit(self, layer: Layer, plan: Plan, knobs: Knobs) -> None:
        """One kernel call for the blocks of full width, one for what is left."""
        tile = (int(knobs["rows"]), int(knobs["columns"]))
        for part in split_channels(layer.out_channels, plan.target.lanes, int(knobs["vectors"])):
            _emit_part(layer, part, tile, plan)


def _weight_recipe(layer: Layer, width: int, first: int, count: int) -> dict[str, Any]:
    """What the recipes of weights know of `count` channels from `first` in blocks of `width`."""
    return {
        **layer.weight_recipe,
        "merged_pixel": layer.x.layout.pixel_steps[2],
        "lanes": width,
        "channels": [first, count],
    }


def _class_shares(layer: Layer, plan: Plan, vectors: int) -> NDArray[np.float64]:
    """Return how many pairs, single and wide quads a block has: the mean of a few blocks."""
    width = vectors * plan.target.lanes
    count = min(layer.out_channels, SAMPLE * width)
    recipe = _weight_recipe(layer, width, 0, count)
    return classify(block_quads(recipe, plan.tensors)).counts.mean(0)


def _layer_cycles(
    layer: Layer,
    plan: Plan,
    geometry: Geometry,
    tile: tuple[int, int, int],
    shares: NDArray[np.float64],
) -> float:
    """Reckon cycles: two multiplications, two loads and four vector instructions in each."""
    rows, columns, vectors = tile
    pixels = rows * columns
    sums = pixels * vectors
    pair = max(sums * 3 / 2, sums * 5 / 4, (2 * pixels + 2 * vectors) / 2) + 1
    single = max(sums, sums * 3 / 4, (pixels + vectors) / 2) + 1
    wide = max(sums, (2 * pixels + 4 * sums) / 4, (pixels + 2 * vectors) / 2) + 1
    block = float(shares @ [pair, single, wide]) + 3.5 * sums + 16
    blocks = -(-layer.out_channels // (vectors * plan.target.lanes))
    lines, length = -(-geometry.lines // rows), -(-geometry.length // columns)
    return geometry.images * lines * length * blocks * block


def _emit_part(layer: Layer, part: Part, tile: tuple[int, int], plan: Plan) -> None:
    geometry = find_geometry(layer)
    rows, columns = tile
    width = part.vectors * plan.target.lanes
    parallel = plan.parallel(layer.macs, PARALLEL_MACS)
    threads = plan.threads if parallel else 1
    kernel = Kernel.of(
        "hybrid",
        lanes=plan.target.lanes,
        tile=(rows, columns, part.vectors),
        pixels=(geometry.images, geometry.lines, geometry.length),
        x_steps=geometry.x,
        y_steps=geometry.y,
        other_steps=geometry.other,
        blocks=part.blocks,
        chunk=tiles_of_a_task(geometry, tile, part.blocks, threads),
        narrow=part.narrow,
        **find_ending(layer, plan),
        parallel=parallel,
    )
    recipe = _weight_recipe(layer, width, part.first, part.count)
    quads = _stored_quads(layer, plan, recipe)
    step = layer.x.layout.pixel_steps[1] * layer.dilation[0]
    places = {**quads, "run_step": step, "steps": run_steps(layer, 4)}
    lists = [
        plan.parameter("hybrid-weights", wide=wide, vector=plan.target.lanes, **recipe, **quads)
        for wide in (False, True)
    ]
    lists += [plan.parameter("hybrid-offsets", wide=wide, **places) for wide in (False, True)]
    channels = {"groups": 1, "lanes": width, "channels": [part.first, part.count]}
    bias = plan.parameter(
        "dot-bias",
        **layer.weight_recipe,
        bias=layer.bias,
        x_zero_point=layer.x_zero_point,
        **channels,
    )
    multiplier = plan.parameter("dot-multiplier", multiplier=layer.multiplier, **channels)
    residual = layer.residual
    other = (
        Pointer(residual.other, geometry.other_base + part.first) if residual else Pointer(layer.x)
    )
    plan.call(
        kernel,
        [
            Pointer(layer.x, geometry.x_base),
            *lists,
            plan.parameter("hybrid-table", counts=quads["counts"]),
            bias,
            multiplier,
            Pointer(layer.y, geometry.y_base + part.first),
            other,
        ],
        layer.epilogue,
        layer.label,
    )


def _stored_quads(layer: Layer, plan: Plan, recipe: dict[str, Any]) -> dict[str, str]:
    """Store the classes of a part's quads; return their names for the recipes."""
    first, count = recipe["channels"]
    name = f"{layer.weight}:quads:{recipe['lanes']}:{first}:{count}:{recipe['merged_pixel']}"
    if layer.phase is not None:
        name += f":{layer.phase}"
    if f"{name}:order" not in plan.tensors:
        quads: Quads = classify(block_quads(recipe, plan.tensors))
        plan.store(f"{name}:order", quads.order)
        plan.store(f"{name}:counts", quads.counts)
    return {"order": f"{name}:order", "counts": f"{name}:counts"}

"""Strategy: 3x3 convolutions of stride 1 by Winograd's algorithm, where weights prove it exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from ..kernels import Kernel
from ..kernels.instructions import INSTRUCTIONS
from ..kernels.winograd import FORMS, Sizes
from ..layer import Layer
from ..plan import Plan, Pointer
from ..value import scratch
from .direct import PARALLEL_MACS, Part, split_channels
from .strategies import Knobs, Strategy, find_ending

# A sum below this comes back from the scaled one; see kernels.winograd.
LIMIT = 1 << 25
# What a processor with 16-bit products has for the direct way; the kernel's transforms are x86's.
WITH_WORDS = ("vpmaddwd", "vpdpbusd")
# Bytes of transformed inputs and sums that shall stay in the second cache together.
SCRATCH_BYTES = 640 * 1024
# How many of the best settings are worth measuring.
OFFERED = 12


class Winograd(Strategy):
    """Dense 3x3 layers of stride 1."""

    def fits(self, layer: Layer, plan: Plan) -> bool:
        """The shape is right, an image holds a tile, no sum can leave 2**25; x86 has the kernel."""
        _, height, width, _ = layer.y.layout.pixels
        shape = (layer.kernel, layer.stride, layer.dilation)
        return (
            plan.target.instruction in WITH_WORDS
            and shape == ((3, 3), (1, 1), (1, 1))
            and layer.groups == 1
            and layer.phase is None
            and not layer.real
            and min(height, width) >= min(FORMS)
            and largest_sum(plan.tensors[layer.weight]) < LIMIT
        )

    def knobs(self, layer: Layer, plan: Plan) -> Sequence[Knobs]:
        """Forms and tiles, fewest reckoned cycles first; none where the direct way takes fewer."""
        found = sorted(_reckoned(layer, plan), key=lambda item: (item[0], sorted(item[1].items())))
        direct = _direct_cycles(layer, plan)
        return [knobs for cycles, knobs in found[:OFFERED] if cycles < direct]

    def emit(self, layer: Layer, plan: Plan, knobs: Knobs) -> None:
        """One kernel call for the blocks of full width, one for what is left."""
        parts = split_channels(layer.out_channels, plan.target.lanes, int(knobs["vectors"]))
        for part in parts:
            _emit_part(layer, part, knobs, plan)


def largest_sum(weight: np.ndarray) -> int:
    """Return the largest magnitude that a sum of 0..255 times int8 weights [out, ...] can have."""
    rows = weight.reshape(len(weight), -1).astype(np.int64)
    return 255 * int(max(np.maximum(rows, 0).sum(1).max(), np.maximum(-rows, 0).sum(1).max()))


def _direct_cycles(layer: Layer, plan: Plan) -> float:
    """Return the cycles of the direct way: its multiplications, two a cycle."""
    dot = INSTRUCTIONS[plan.target.instruction]
    products = dot.group // dot.weights_at_once
    return layer.macs / (products * plan.target.lanes * 2) / _threads(layer, plan)


def _threads(layer: Layer, plan: Plan) -> int:
    return plan.threads if plan.parallel(layer.macs, PARALLEL_MACS) else 1


def _reckoned(layer: Layer, plan: Plan) -> Iterator[tuple[float, Knobs]]:
    images, height, width, _ = layer.y.layout.pixels
    for form, vectors, rows in product(FORMS, (1, 2, 3, 4), range(2, 17)):
        registers = rows * vectors + vectors + 1
        if form > min(height, width) or registers > min(plan.target.registers, 31):
            continue
        per_image = -(-height // form) * -(-width // form)
        for tiles in sorted({-(-per_image // groups) for groups in range(1, 17)}):
            if tiles < rows:
                continue
            sizes = Sizes(form, plan.target.lanes, vectors, tiles, layer.in_channels)
            groups = images * -(-per_image // tiles)
            knobs = {"form": form, "vectors": vectors, "rows": rows, "tiles": tiles}
            yield _cycles(layer, sizes, rows, groups, _threads(layer, plan)), knobs


def _share(groups: int, blocks: int, threads: int) -> tuple[int, bool]:
    """Return how many workers there are, and whether they share the blocks of channels."""
    if groups % threads == 0 or groups >= 4 * threads:
        return threads, False
    by_blocks = blocks % threads == 0 or blocks > groups
    return min(threads, blocks if by_blocks else groups), by_blocks


def _cycles(layer: Layer, sizes: Sizes, rows: int, groups: int, threads: int) -> float:
    """Return the cycles of a layer.

    Two multiplications and two loads start in a cycle, and three other instructions. A vector of
    weights, inputs or sums takes two to three instructions for each of the window's values, a
    vector of outputs another eight for each. Tiles of many sums are slower than that says
    (measured: 28 sums by a fifth), as their short loops don't overlap.
    """
    window = FORMS[sizes.form].window ** 2
    steps = -(-sizes.channels // 2)
    cycles = 0.0
    for part in split_channels(layer.out_channels, sizes.lanes, sizes.vectors):
        workers, by_blocks = _share(groups, part.blocks, threads)
        blocks = -(-part.blocks // workers) if by_blocks else part.blocks
        turns = groups if by_blocks else -(-groups // workers)
        step = max(rows * part.vectors / 2, (rows + part.vectors) / 2, 4)
        crowded = 1 + 0.015 * max(rows * part.vectors - 16, 0)
        tile = steps * step * crowded + rows * part.vectors + 10
        products = sizes.planes * -(-sizes.tiles // rows) * tile
        weights = steps * part.vectors * window * 1.25
        into = sizes.tiles * sizes.input_row / (2 * sizes.lanes) * window * 2
        back = sizes.tiles * part.vectors * (window * 1.5 + sizes.form**2 * 3)
        cycles += blocks * weights + turns * (into + blocks * (products + back))
    scratch = 2 * sizes.planes * sizes.input_plane + 4 * sizes.planes * sizes.output_plane
    scratch += 2 * sizes.planes * sizes.weight_plane
    return cycles * (1.15 if scratch > SCRATCH_BYTES else 1)


def _emit_part(layer: Layer, part: Part, knobs: Knobs, plan: Plan) -> None:
    form, rows, tiles = int(knobs["form"]), int(knobs["rows"]), int(knobs["tiles"])
    lanes = plan.target.lanes
    images, height, width, _ = layer.y.layout.pixels
    x_map, y_map, *others = layer.pixel_maps()
    sizes = Sizes(form, lanes, part.vectors, tiles, layer.in_channels)
    groups = images * -(-(-(-height // form) * -(-width // form)) // tiles)
    workers, by_blocks = _share(groups, part.blocks, _threads(layer, plan))
    kept = 1 if groups == 1 else part.blocks
    residual = layer.residual
    kernel = Kernel.of(
        "winograd",
        instruction=plan.target.instruction,
        form=form,
        lanes=lanes,
        vectors=part.vectors,
        rows=rows,
        tiles=tiles,
        channels=layer.in_channels,
        pixels=(images, height, width),
        x_steps=tuple(x_map[1:]),
        y_steps=tuple(y_map[1:]),
        other_steps=tuple(others[0][1:]) if others else None,
        blocks=part.blocks,
        kept=kept,
        workers=workers,
        by_blocks=by_blocks,
        narrow=part.narrow,
        **find_ending(layer, plan),
    )
    common = {"groups": 1, "lanes": sizes.width, "channels": [part.first, part.count]}
    weights = plan.parameter(
        "winograd-weights",
        weight=layer.weight,
        lanes=lanes,
        vectors=part.vectors,
        channels=[part.first, part.count],
    )
    bias = plan.parameter(
        "dot-bias", weight=layer.weight, bias=layer.bias, x_zero_point=layer.x_zero_point, **common
    )
    multiplier = plan.parameter("dot-multiplier", multiplier=layer.multiplier, **common)
    made = scratch(
        f"{layer.label}_weights", workers * kept * sizes.planes * sizes.weight_plane, "int16"
    )
    inputs = scratch(f"{layer.label}_inputs", workers * sizes.planes * sizes.input_plane, "int16")
    sums = scratch(f"{layer.label}_sums", workers * sizes.planes * sizes.output_plane, "int32")
    other = Pointer(residual.other, others[0][0] + part.first) if residual else Pointer(layer.x)
    plan.call(
        kernel,
        [
            Pointer(layer.x, x_map[0]),
            weights,
            bias,
            multiplier,
            Pointer(layer.y, y_map[0] + part.first),
            other,
            made,
            inputs,
            sums,
        ],
        layer.epilogue,
        layer.label,
    )

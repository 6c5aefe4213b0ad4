"""Strategy: depthwise convolution, all geometry fixed at compile time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil

from ..kernels import Kernel
from ..kernels.depthwise import Window
from ..kernels.interleave import Interleaving
from ..layer import Layer
from ..plan import Plan, Pointer
from .strategies import Knobs, Strategy, is_bounded

# Below this a layer takes less time than waking a thread.
PARALLEL_MACS = 200_000
# How many of the best settings are worth measuring.
OFFERED = 12
# Those that a processor with a certain dot-product instruction has for this.
INSTRUCTIONS = {
    "vpdpbusd": ("vpdpbusd", "vpdpwssd"),
    "vpmaddwd": ("vpmaddwd",),
    "smlal": ("smlal",),
    "sdot": ("sdot", "smlal"),
    "usdot": ("usdot", "smlal"),
}
# Output pixels of a tile are written out one by one; more make code without end.
LARGEST_TILE = 8


class Depthwise(Strategy):
    """Fits layers whose every channel has its own filter."""

    def fits(self, layer: Layer, plan: Plan) -> bool:
        """One input and one output channel a group, several groups, nothing to add, bytes out."""
        return (
            plan.target.instruction in INSTRUCTIONS
            and layer.groups > 1
            and layer.in_channels == 1
            and layer.out_channels == layer.groups
            and layer.residual is None
            and not layer.real
            and layer.x.layout.pixel_steps[2] % 8 == 0
            and bool(layer.macs)
        )

    def knobs(self, layer: Layer, plan: Plan) -> Sequence[Knobs]:
        """Tiles, the one of fewest reckoned cycles first."""
        return sorted(_settings(layer, plan), key=lambda k: _cycles(layer, plan, k))[:OFFERED]

    def emit(self, layer: Layer, plan: Plan, knobs: Knobs) -> None:
        """Append the one kernel call."""
        form, seen = _form(plan, knobs), _window(layer, plan, knobs)
        copies = int(knobs["copies"])
        channels = form.channels // copies
        starts = _block_starts(layer, channels)
        x_map, y_map = layer.pixel_maps()
        kernel = Kernel.of(
            "depthwise",
            instruction=form.instruction,
            lanes=form.lanes,
            copies=copies,
            tile=seen.tile,
            window=layer.kernel,
            stride=layer.stride,
            dilation=layer.dilation,
            counts=layer.y.layout.pixels[:3],
            x_steps=layer.x.layout.pixel_steps,
            y_steps=layer.y.layout.pixel_steps,
            blocks=len(starts),
            last_block=starts[-1],
            unbounded=not is_bounded(layer, plan),
            parallel=plan.parallel(layer.macs, PARALLEL_MACS),
        )
        common = {"channels": channels, "copies": copies, "parts": form.parts, "starts": starts}
        rows = [
            [
                [-1 if tap is None else tap for tap in seen.taps(row, group)]
                for group in range(seen.groups)
            ]
            for row in range(seen.tile[0])
        ]
        weights = plan.parameter(
            "depthwise-weights", **layer.weight_recipe, rows=rows, dtype=form.weight, **common
        )
        bias = plan.parameter(
            "depthwise-bias",
            **layer.weight_recipe,
            bias=layer.bias,
            x_zero_point=layer.x_zero_point - form.shift,
            **common,
        )
        multiplier = plan.parameter("depthwise-multiplier", multiplier=layer.multiplier, **common)
        plan.call(
            kernel,
            [
                Pointer(layer.x, x_map[0]),
                weights,
                bias,
                multiplier,
                Pointer(layer.y, y_map[0]),
            ],
            [layer.lo + layer.zero_point, layer.hi + layer.zero_point, layer.zero_point],
            layer.label,
        )


def _form(plan: Plan, knobs: Knobs) -> Interleaving:
    return Interleaving(str(knobs["instruction"]), plan.target.lanes)


def _window(layer: Layer, plan: Plan, knobs: Knobs) -> Window:
    tile = (int(knobs["rows"]), int(knobs["columns"]))
    group = _form(plan, knobs).group
    return Window(layer.kernel, layer.stride, layer.dilation, tile, group)


def _block_starts(layer: Layer, channels: int) -> list[int]:
    """Return the first channel of each block; the last one starts early instead of being short."""
    stored = -(-layer.out_channels // 8) * 8
    return [min(start, stored - channels) for start in range(0, stored, channels)]


def _settings(layer: Layer, plan: Plan) -> Iterator[Knobs]:
    """Yield every setting that can be computed."""
    _, height, width, _ = layer.y.layout.pixels
    stored = -(-layer.out_channels // 8) * 8
    instructions = INSTRUCTIONS[plan.target.instruction]
    for instruction, copies in ((i, c) for i in instructions for c in (1, 2, 4, 8)):
        channels = Interleaving(instruction, plan.target.lanes).channels // copies
        if channels > stored or channels < 8:
            continue
        for rows, columns in product((1, 2), range(1, LARGEST_TILE + 1)):
            if rows <= height and columns * copies <= width:
                yield {
                    "instruction": instruction,
                    "copies": copies,
                    "rows": rows,
                    "columns": columns,
                }


def _cycles(layer: Layer, plan: Plan, knobs: Knobs) -> tuple[float, int]:
    """Reckon the vector instructions of a layer, those that spilled registers cost included."""
    form, seen = _form(plan, knobs), _window(layer, plan, knobs)
    rows, columns = seen.tile
    copies = int(knobs["copies"])
    _, height, width, _ = layer.y.layout.pixels
    blocks = len(_block_starts(layer, form.channels // copies))
    tiles = ceil(height / rows) * ceil(width / (columns * copies)) * blocks
    widening = form.group == 2
    load = seen.reach(0) * (copies + widening) + seen.groups * 2 * (form.group - 1) * form.group / 2
    live = ceil(seen.kernel[1] * seen.dilation[1] / seen.stride[1])
    live = min(live, columns) * rows * form.parts
    steps = sum(
        seen.taps(r, g) != [None] * form.group for r in range(rows) for g in range(seen.groups)
    )
    multiply = seen.kernel[1] * columns * steps * form.parts
    if form.instruction == "vpmaddwd":
        multiply *= 2
    finish = rows * columns * (4.5 * form.parts + 2 + copies)
    spilled = max(0, live + form.parts + 2 - plan.target.registers)
    total = seen.reach(1) * (load + 2 * spilled) + multiply + finish + 16
    return tiles * total, rows * columns

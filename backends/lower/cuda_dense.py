"""Strategy: dense and grouped layers on a GPU, as tiles in shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from math import gcd

from ..cuda.dense_problem import Window
from ..cuda.tiles import Tile
from ..kernels import Kernel
from ..layer import Layer
from ..plan import Plan, Pointer
from .cuda_tiles import RATES, overlaps, reckon_cycles, tiles_of
from .geometry import Geometry, find_geometry
from .strategies import Knobs, Strategy

# How many of the best tiles are worth measuring.
OFFERED = 12


@dataclass(frozen=True)
class Alignment:
    """What addresses are multiples of, in bytes: those of pieces of x, and those of results."""

    pieces: int
    results: int


class CudaDense(Strategy):
    """Every layer of a CUDA target."""

    def fits(self, layer: Layer, plan: Plan) -> bool:
        """Any layer."""
        return plan.target.instruction in RATES and bool(layer.out_channels)

    def knobs(self, layer: Layer, plan: Plan) -> Sequence[Knobs]:
        """Tiles, the one of fewest reckoned cycles first."""
        geometry, window = find_geometry(layer), find_window(layer)
        tiles = sorted(
            tiles_of(plan.target),
            key=lambda tile: (reckon_cycles(tile, layer, geometry, window), astuple(tile)),
        )
        return [asdict(tile) for tile in tiles[:OFFERED]]

    def emit(self, layer: Layer, plan: Plan, knobs: Knobs) -> None:
        """Append the one launch, if there is an output pixel."""
        if 0 not in layer.y.layout.pixels:
            _emit(layer, plan, Tile(**knobs))


def find_window(layer: Layer) -> Window:
    """Return the runs of a layer's window: kernel rows where their values are neighbours."""
    _, row, pixel = layer.x.layout.pixel_steps
    height, width = layer.kernel
    down, right = row * layer.dilation[0], pixel * layer.dilation[1]
    if _is_merged(layer):
        return Window(height, 1, (width - 1) * pixel + layer.in_channels, down, 0)
    return Window(height, width, layer.in_channels, down, right)


def _is_merged(layer: Layer) -> bool:
    return layer.groups == 1 and (layer.kernel[1] == 1 or layer.dilation[1] == 1)


def _emit(layer: Layer, plan: Plan, tile: Tile) -> None:
    geometry, window = find_geometry(layer), find_window(layer)
    count = layer.out_channels // layer.groups
    alignment = _alignment(layer, geometry, window)
    # Behind the last channel of a pixel lies padding, which may be written.
    stored = -(-count // 8) * 8 if layer.groups == 1 and not layer.real else count
    kernel = Kernel.of(
        "cuda-dense",
        tile=astuple(tile),
        window=astuple(window),
        pixels=(geometry.images, geometry.lines, geometry.length),
        x_steps=geometry.x,
        y_steps=geometry.y,
        other_steps=geometry.other,
        group_steps=(layer.in_channels, count),
        groups=layer.groups,
        blocks=-(-count // tile.channels),
        alignment=alignment.pieces,
        stored=stored,
        unit=_together(gcd(alignment.results, stored, tile.run)),
        overlapped=overlaps(plan.target),
        real=layer.real,
    )
    common = {"groups": layer.groups, "channels": [0, count]}
    merged = layer.x.layout.pixel_steps[2] if _is_merged(layer) else 0
    weights = plan.parameter(
        "cuda-tile-weights",
        **layer.weight_recipe,
        merged_pixel=merged,
        tile=asdict(tile),
        **common,
    )
    bias = plan.parameter(
        "dot-bias",
        **layer.weight_recipe,
        bias=layer.bias,
        x_zero_point=layer.x_zero_point,
        lanes=tile.channels,
        **common,
    )
    multiplier = plan.parameter(
        "dot-multiplier", multiplier=layer.multiplier, lanes=tile.channels, **common
    )
    residual = layer.residual
    other = Pointer(residual.other, geometry.other_base) if residual else Pointer(layer.x)
    x, y = Pointer(layer.x, geometry.x_base), Pointer(layer.y, geometry.y_base)
    plan.call(kernel, [x, weights, bias, multiplier, y, other], layer.epilogue, layer.label)


def _alignment(layer: Layer, geometry: Geometry, window: Window) -> Alignment:
    sizes = (geometry.images, geometry.lines, geometry.length)
    pieces = [geometry.x_base, *_used(geometry.x, sizes)]
    pieces += _used((window.down, window.right), (window.rows, window.columns))
    results = [geometry.y_base, *_used(geometry.y, sizes)]
    if geometry.other:
        results += [geometry.other_base, *_used(geometry.other, sizes)]
    if layer.groups > 1:
        pieces.append(layer.in_channels)
        results.append(layer.out_channels // layer.groups)
    return Alignment(_together(gcd(16, *pieces)), _together(gcd(16, *results)))


def _together(multiple: int) -> int:
    """Return how many bytes one access takes where addresses are such multiples."""
    return multiple if multiple >= 4 else 1


def _used(steps: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Return the steps that are taken."""
    return [step for step, size in zip(steps, sizes, strict=True) if size > 1]

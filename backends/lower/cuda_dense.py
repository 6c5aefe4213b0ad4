"""Strategy: dense and grouped layers on a GPU, as tiles in shared memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import product
from math import ceil, gcd

from ..cuda.dense import Window
from ..cuda.tiles import WARP, Tile
from ..kernels import Kernel
from ..plan import Plan, Pointer
from ..target import Target
from .geometry import Geometry, find_geometry
from .layer import Knobs, Layer, Strategy

# How many of the best tiles are worth measuring.
OFFERED = 12
# Bytes of shared memory that a block may have without asking the driver.
SHARED = 48 * 1024
# What a multiprocessor does in a cycle: multiply-accumulates, and bytes of shared memory.
RATES = {"dp4a": 512, "mma-s8": 2048}
SHARED_RATE = 128
# Cycles until a step's first bytes arrive, which other stages hide; of a barrier; of a block's end.
LATENCY, BARRIER, ENDING = 600, 40, 1500
# What the rules reckon with is an A100's: multiprocessors, and of each one the threads, the
# registers and the bytes of shared memory.
MULTIPROCESSORS = 108
THREADS, REGISTERS, MEMORY = 2048, 65536, 160 * 1024
# Pixels and channels of a block, then of a thread or warp.
SHAPES: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "dp4a": (
        (32, 32, 4, 4),
        (32, 64, 4, 8),
        (64, 32, 4, 4),
        (64, 64, 4, 8),
        (64, 64, 8, 8),
        (128, 64, 8, 8),
        (128, 128, 8, 8),
    ),
    "mma-s8": (
        (32, 32, 16, 16),
        (32, 64, 16, 32),
        (64, 32, 32, 16),
        (64, 64, 32, 32),
        (128, 32, 32, 32),
        (128, 64, 64, 32),
        (64, 128, 32, 64),
        (128, 128, 64, 32),
        (128, 128, 64, 64),
    ),
}


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
            _tiles(plan.target),
            key=lambda tile: (_cycles(tile, layer, geometry, window), astuple(tile)),
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


def _tiles(target: Target) -> Iterator[Tile]:
    """Yield every tile that has room in shared memory."""
    for pixels, channels, *part in SHAPES[target.instruction]:
        for depth, stages in product((32, 64, 128), (2, 3, 4, 6) if _overlaps(target) else (2,)):
            tile = Tile(target.instruction, pixels, channels, part[0], part[1], depth, stages)
            # Few threads get long steps: a barrier costs them as much. What waits in registers has
            # to have room there.
            waiting = 0 if _overlaps(target) else (pixels + channels) * tile.pieces / tile.threads
            if tile.shared <= SHARED and tile.threads * depth >= 64 * 64 and waiting <= 8:
                yield tile


def _overlaps(target: Target) -> bool:
    """Whether copies to shared memory are asynchronous."""
    return target.capability is not None and target.capability >= (8, 0)


def _cycles(tile: Tile, layer: Layer, geometry: Geometry, window: Window) -> float:
    """Reckon a layer's cycles: waves of blocks, each as long as what limits its steps."""
    pixels = geometry.images * geometry.lines * geometry.length
    channels = layer.out_channels // layer.groups
    blocks = ceil(pixels / tile.pixels) * ceil(channels / tile.channels) * layer.groups
    steps = ceil(window.pieces / tile.pieces)
    resident = min(_resident(tile), ceil(blocks / MULTIPROCESSORS))
    multiply = tile.pixels * tile.channels * tile.depth / RATES[tile.instruction]
    read = _shared_bytes(tile) / SHARED_RATE
    # Few warps can't keep a multiprocessor's four schedulers busy.
    idle = max(1.0, 8 * WARP / (resident * tile.threads))
    step = max(max(multiply, read) * resident * idle + BARRIER, LATENCY / (tile.stages - 1))
    waves = ceil(blocks / (MULTIPROCESSORS * resident))
    return waves * (steps * step + LATENCY + ENDING)


def _resident(tile: Tile) -> int:
    """Return how many blocks a multiprocessor has room for."""
    # What NVRTC takes beside the sums.
    registers = tile.threads * (tile.sums + 80)
    limits = (THREADS // tile.threads, REGISTERS // registers, MEMORY // tile.shared)
    return max(1, min(limits))


def _shared_bytes(tile: Tile) -> float:
    """Return the bytes that a block reads from shared memory, and writes to it, in a step."""
    written = (tile.pixels + tile.channels) * tile.depth
    # Eight threads with dot products of their own share their pixels: one access serves them all.
    rows = tile.part_pixels / (8 if tile.instruction == "dp4a" else 1)
    return tile.parts * (rows + tile.part_channels) * tile.depth + written


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
        overlapped=_overlaps(plan.target),
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

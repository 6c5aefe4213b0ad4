"""Which tiles there are for dense layers on a GPU, and how many cycles a layer takes with one.

Reckoned, not measured: what an A100's multiprocessor does in a cycle, from NVIDIA's tables, and
latencies of the usual size.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import ceil

from ..cuda.dense_problem import Window
from ..cuda.tiles import PIECE, WARP, Tile
from ..layer import Layer
from ..target import Target
from .geometry import Geometry

# Bytes of shared memory that a block may have without asking the driver.
SHARED = 48 * 1024
# What a multiprocessor does in a cycle: multiply-accumulates, bytes of shared memory, and its part
# of the bytes that the second-level cache gives.
RATES = {"dp4a": 512, "mma-s8": 2048}
SHARED_RATE, CACHE_RATE = 128, 48
# Cycles until a step's first bytes arrive, which other stages hide; of a barrier; of a block's end;
# of a sum that another slice has.
LATENCY, BARRIER, ENDING, SLICE = 600, 40, 1500, 4
# What the rules reckon with is an A100's: multiprocessors, and of each one the threads, the
# registers and the bytes of shared memory.
MULTIPROCESSORS = 108
THREADS, REGISTERS, MEMORY = 2048, 65536, 160 * 1024
# Pieces of 16 bytes that a thread may keep in registers while it multiplies.
MOST_WAITING = 8
# Threads of a slice times bytes of a step: less is not worth its barrier.
LEAST_TURN = {"dp4a": 64 * 64, "mma-s8": 32 * 32}
# Pixels and channels of a block, then of a thread or warp, then slices.
SHAPES: dict[str, tuple[tuple[int, int, int, int, int], ...]] = {
    "dp4a": (
        (32, 32, 4, 4, 1),
        (32, 64, 4, 8, 1),
        (64, 32, 4, 4, 1),
        (64, 64, 4, 8, 1),
        (64, 64, 8, 8, 1),
        (128, 64, 8, 8, 1),
        (128, 128, 8, 8, 1),
        (32, 32, 4, 4, 2),
        (32, 32, 4, 4, 4),
    ),
    "mma-s8": (
        (32, 32, 16, 16, 1),
        (32, 64, 16, 32, 1),
        (64, 32, 32, 16, 1),
        (64, 64, 32, 32, 1),
        (128, 32, 32, 32, 1),
        (128, 64, 64, 32, 1),
        (64, 128, 32, 64, 1),
        (128, 128, 64, 32, 1),
        (128, 128, 64, 64, 1),
        (32, 32, 32, 32, 4),
        (32, 64, 32, 32, 4),
        (64, 64, 32, 32, 2),
    ),
}


def tiles_of(target: Target) -> Iterator[Tile]:
    """Yield every tile that is worth trying."""
    for pixels, channels, rows, columns, slices in SHAPES[target.instruction]:
        for depth, stages in product((32, 64, 128), (2, 3, 4, 6) if overlaps(target) else (2,)):
            part = (rows, columns, depth, stages, slices)
            tile = Tile(target.instruction, pixels, channels, *part)
            if _is_sound(tile, target):
                yield tile


def _is_sound(tile: Tile, target: Target) -> bool:
    """Whether a tile has room in shared memory, and what waits in registers has room there."""
    waiting = 0 if overlaps(target) else tile.stage // PIECE // tile.team
    enough = tile.team * tile.depth >= LEAST_TURN[tile.instruction]
    return tile.shared <= SHARED and waiting <= MOST_WAITING and enough


def overlaps(target: Target) -> bool:
    """Whether copies to shared memory are asynchronous."""
    return target.capability is not None and target.capability >= (8, 0)


def reckon_cycles(tile: Tile, layer: Layer, geometry: Geometry, window: Window) -> float:
    """Reckon a layer's cycles: waves of blocks, each as long as what limits its steps."""
    pixels = geometry.images * geometry.lines * geometry.length
    channels = layer.out_channels // layer.groups
    blocks = ceil(pixels / tile.pixels) * ceil(channels / tile.channels) * layer.groups
    turns = ceil(window.pieces / (tile.pieces * tile.slices))
    resident = min(_resident(tile), ceil(blocks / MULTIPROCESSORS))
    multiply = tile.slices * tile.pixels * tile.channels * tile.depth / RATES[tile.instruction]
    read = tile.slices * _shared_bytes(tile) / SHARED_RATE
    arrive = tile.slices * tile.stage / CACHE_RATE
    # Few warps can't keep a multiprocessor's four schedulers busy.
    idle = max(1.0, 8 * WARP / (resident * tile.threads))
    work = max(max(multiply, read) * idle, arrive) * resident + BARRIER
    turn = max(work, LATENCY / (tile.stages - 1))
    waves = ceil(blocks / (MULTIPROCESSORS * resident))
    return waves * (turns * turn + LATENCY + ENDING + (tile.slices - 1) * tile.sums * SLICE)


def _resident(tile: Tile) -> int:
    """Return how many blocks a multiprocessor has room for."""
    # What NVRTC takes beside the sums.
    registers = tile.threads * (tile.sums + 80)
    limits = (THREADS // tile.threads, REGISTERS // registers, MEMORY // tile.shared)
    return max(1, min(limits))


def _shared_bytes(tile: Tile) -> float:
    """Return the bytes that a slice reads from shared memory, and writes to it, in a step."""
    # Eight threads with dot products of their own share their pixels: one access serves them all.
    rows = tile.part_pixels / (8 if tile.instruction == "dp4a" else 1)
    return tile.parts * (rows + tile.part_channels) * tile.depth + tile.stage

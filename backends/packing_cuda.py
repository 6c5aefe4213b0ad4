"""Packing recipes of CUDA's layers: weights as tiles of shared memory, ready to be copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cuda.tiles import PIECE, Tile
from .packing import int8_weight, weight_runs

Array = NDArray[Any]
Tensors = Mapping[str, Array]


def tile_weights(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """int8 [group, block, step, row of the tile, place, 16]: see `cuda.tiles`.

    Each run of the window is padded to whole pieces, all of them to as many steps for each slice.
    """
    tile = Tile(**recipe["tile"])
    runs = weight_runs(recipe, tensors)
    groups, count, n_runs, length = runs.shape
    run_pieces = -(-length // PIECE)
    blocks = -(-count // tile.channels)
    steps = -(-n_runs * run_pieces // (tile.pieces * tile.slices)) * tile.slices
    padded = np.zeros((groups, blocks * tile.channels, n_runs, run_pieces * PIECE), np.int8)
    padded[:, :count, :, :length] = runs
    pieces = np.zeros((*padded.shape[:2], steps * tile.pieces, PIECE), np.int8)
    pieces[:, :, : n_runs * run_pieces] = padded.reshape(*padded.shape[:2], -1, PIECE)
    tiles = pieces.reshape(groups, blocks, tile.channels, steps, tile.pieces, PIECE)
    tiles = tiles[:, :, tile.channel_order()].transpose(0, 1, 3, 2, 4, 5)
    rows = np.arange(tile.channels)[:, None]
    swizzle = np.array([tile.swizzle(row) for row in range(tile.channels)])[:, None]
    # XOR is its own inverse: what stands at a place is the piece with the place XORed.
    return tiles[:, :, :, rows, np.arange(tile.pieces) ^ swizzle]


def depthwise_words(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """int8 [word of channels, kernel column, group of rows, channel, row]: see `cuda.depthwise`."""
    weight = int8_weight(recipe, tensors)
    channels, _, height, width = weight.shape
    groups = -(-height // 4)
    padded = np.zeros((-(-channels // 4) * 4, groups * 4, width), np.int8)
    padded[:channels, :height] = weight[:, 0]
    words = padded.reshape(-1, 4, groups, 4, width)
    return words.transpose(0, 4, 2, 1, 3)

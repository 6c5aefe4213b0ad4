"""Packing recipes of hybrid layers: what `kernels.hybrid` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .packing import dot_weights, split_neighbours

Array = NDArray[Any]
Tensors = Mapping[str, Array]


def block_quads(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """int8 [block, quad, channel, neighbour]."""
    packed = dot_weights({**recipe, "neighbours": 4, "dtype": "int8", "groups": 1}, tensors)
    blocks, _, _, channels, _ = packed.shape[1:]
    return packed.reshape(blocks, -1, channels, 4)


def _entries(recipe: dict[str, Any], tensors: Tensors) -> tuple[Array, Array]:
    """Return the blocks and quads of the list's entries: the wide ones, or all others."""
    order, counts = tensors[recipe["order"]], tensors[recipe["counts"]]
    narrow = counts[:, 0] * 2 + counts[:, 1]
    runs = np.stack([narrow, counts[:, 2]], 1).reshape(-1)
    wide = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    blocks = np.repeat(np.arange(len(runs)) // 2, runs)
    chosen = wide == recipe["wide"]
    return blocks[chosen], order[chosen].astype(np.int64)


def hybrid_weights(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """[entry, vector, ...]: int8 [lane, neighbour], or int16 [parity, lane, pair] if wide."""
    blocks, quads = _entries(recipe, tensors)
    chosen = block_quads(recipe, tensors)[blocks, quads]
    return split_neighbours(chosen.astype(np.int16), recipe["vector"]) if recipe["wide"] else chosen


def hybrid_offsets(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """int32: elements from the beginning of a window to each entry's bytes."""
    _, quads = _entries(recipe, tensors)
    run, step = np.divmod(quads, recipe["steps"])
    return (run * recipe["run_step"] + step * 4).astype(np.int32)


def hybrid_table(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """int32 [block, 5]: pairs, single and wide quads, the first entries of both lists."""
    counts = tensors[recipe["counts"]]
    sizes = np.stack([counts[:, 0] * 2 + counts[:, 1], counts[:, 2]], 1)
    first = np.cumsum(sizes, axis=0) - sizes
    return np.concatenate([counts, first], 1).astype(np.int32)

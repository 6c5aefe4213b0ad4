"""Packed parameters: how stored int8 weights become what the kernels read, when an artifact loads.

A recipe is plain JSON. `pack(recipe, tensors)` is called once at compile time, to learn the size,
and once at load. NumPy only: no torch here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = Mapping[str, Array]


def _affine(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """Offsets of every index in a box: one column `base + sum(step * index)` for each map."""
    del tensors
    index = np.indices(recipe["counts"], dtype=np.int64).reshape(len(recipe["counts"]), -1)
    maps = np.array(recipe["maps"], dtype=np.int64)
    return (index.T @ maps[:, 1:].T + maps[:, 0]).astype(np.int32)


def _entries(recipe: dict[str, Any], tensors: Tensors) -> Array:
    del tensors
    return np.array(recipe["values"], dtype=np.int32)


def _raw(recipe: dict[str, Any], tensors: Tensors) -> Array:
    return tensors[recipe["tensor"]]


def _constant(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """A stored uint8 or int8 tensor as an activation: in its layout, int8 moved by 128."""
    tensor = tensors[recipe["tensor"]]
    memory = np.zeros(recipe["size"], recipe["dtype"])
    offsets = np.full(tensor.shape, recipe["base"], np.int64)
    for index, step in zip(np.indices(tensor.shape, sparse=True), recipe["steps"], strict=True):
        offsets += index * step
    memory[offsets] = tensor.astype(np.int16) + recipe["shift"]
    return memory


def _table(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """A 256-entry table as the bytes in memory: int8 results are moved by 128."""
    table = tensors[recipe["tensor"]]
    return (table.astype(np.int32) + recipe["shift"]).astype(np.uint8)


def int8_weight(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """The int8 weight as [out, in/groups, kh, kw]; a linear layer's gets a 1 x 1 kernel."""
    weight = tensors[recipe["weight"]]
    if "phase" in recipe:
        return _phase(weight, **recipe["phase"])
    return weight if weight.ndim == 4 else weight[:, :, None, None]


def _phase(weight: Array, groups: int, rows: list[int], columns: list[int]) -> Array:
    """Some taps of a transposed convolution's [in, out/groups, kh, kw] as a convolution's weight.

    Without taps there is one of zeros.
    """
    into, out, *kernel = weight.shape
    grouped = weight.reshape(groups, into // groups, out, *kernel).swapaxes(1, 2)
    turned = grouped.reshape(groups * out, into // groups, *kernel)
    if not rows or not columns:
        return np.zeros((*turned.shape[:2], max(len(rows), 1), max(len(columns), 1)), np.int8)
    return turned[:, :, rows][:, :, :, columns]


def _channels(recipe: dict[str, Any], values: Array) -> Array:
    """Arrange one entry an output channel as [groups, blocks, lanes], zeros at the end."""
    first, count = recipe["channels"]
    lanes, groups = recipe["lanes"], recipe["groups"]
    grouped = values.reshape(groups, -1)[:, first : first + count]
    padded = np.zeros((groups, -(-count // lanes) * lanes), values.dtype)
    padded[:, :count] = grouped
    return padded


def dot_weights(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """[group, block, run, step, lane, neighbour]: see kernels.dot_product.

    In the `order` "halves" the lanes of a `vector` are [..., vector, parity, lane, pair] instead,
    in "neighbours" [..., vector, neighbour, lane]. Runs are padded to a multiple of `reads`. See
    `kernels.instructions.Instruction`.
    """
    lanes, neighbours = recipe["lanes"], recipe["neighbours"]
    runs = weight_runs(recipe, tensors)
    groups, count, n_runs, _ = runs.shape
    reads = recipe.get("reads", neighbours)
    steps = -(-runs.shape[-1] // reads) * (reads // neighbours)
    blocks = -(-count // lanes)
    packed = np.zeros((groups, blocks * lanes, n_runs, steps * neighbours), np.int8)
    packed[:, :count, :, : runs.shape[-1]] = runs
    packed = packed.reshape(groups, blocks, lanes, n_runs, steps, neighbours)
    packed = packed.transpose(0, 1, 3, 4, 2, 5).astype(recipe["dtype"])
    order = recipe.get("order", "lanes")
    if order == "halves":
        return split_neighbours(packed, recipe["vector"])
    return gather_neighbours(packed, recipe["vector"]) if order == "neighbours" else packed


def weight_runs(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """[group, out channel, run, value]: each window as runs of neighbours in memory.

    With `merged_pixel` a kernel row is one run, its pixels that far from each other; else each tap.
    """
    weight = int8_weight(recipe, tensors)
    groups, pixel = recipe["groups"], recipe["merged_pixel"]
    first, count = recipe["channels"]
    out, depth, height, width = weight.shape
    weight = weight.reshape(groups, out // groups, depth, height, width)[:, first : first + count]
    taps = weight.transpose(0, 1, 3, 4, 2)
    if not pixel:
        return taps.reshape(groups, count, height * width, depth)
    padded = np.zeros((groups, count, height, width, pixel), np.int8)
    padded[..., :depth] = taps
    runs = padded.reshape(groups, count, height, width * pixel)
    return runs[..., : (width - 1) * pixel + depth]


def split_neighbours(weights: Array, lanes: int) -> Array:
    """[..., vector * lane, neighbour] as [..., vector, parity, lane, pair]."""
    *outer, channels, neighbours = weights.shape
    pairs = weights.reshape(*outer, channels // lanes, lanes, neighbours // 2, 2)
    return pairs.swapaxes(-2, -1).swapaxes(-3, -2)


def gather_neighbours(weights: Array, lanes: int) -> Array:
    """[..., vector * lane, neighbour] as [..., vector, neighbour, lane]."""
    *outer, channels, neighbours = weights.shape
    return weights.reshape(*outer, channels // lanes, lanes, neighbours).swapaxes(-2, -1)


def folded_bias(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """`bias - x_zero_point * sum(weights)` modulo 2**32, one an output channel."""
    weight = int8_weight(recipe, tensors)
    folded = -int(recipe["x_zero_point"]) * weight.sum((1, 2, 3), dtype=np.int64)
    if recipe["bias"] is not None:
        folded = folded + tensors[recipe["bias"]].astype(np.int64)
    return folded.astype(np.uint32, casting="unsafe").view(np.int32)


def _dot_bias(recipe: dict[str, Any], tensors: Tensors) -> Array:
    return _channels(recipe, folded_bias(recipe, tensors))


def _dot_multiplier(recipe: dict[str, Any], tensors: Tensors) -> Array:
    return _channels(recipe, tensors[recipe["multiplier"]].astype(np.float32))


Recipe = Callable[[dict[str, Any], Tensors], Array]

# Kind to a function, here or, as "module:function", in a module of its own, loaded on first use.
RECIPES: dict[str, Recipe | str] = {
    "affine": _affine,
    "entries": _entries,
    "raw": _raw,
    "constant": _constant,
    "table": _table,
    "dot-weights": dot_weights,
    "dot-bias": _dot_bias,
    "dot-multiplier": _dot_multiplier,
    "hybrid-weights": ".packing_hybrid:hybrid_weights",
    "hybrid-offsets": ".packing_hybrid:hybrid_offsets",
    "hybrid-table": ".packing_hybrid:hybrid_table",
    "winograd-weights": ".packing_winograd:winograd_weights",
    "cuda-tile-weights": ".packing_cuda:tile_weights",
    "cuda-depthwise-words": ".packing_cuda:depthwise_words",
    "depthwise-weights": ".packing_depthwise:depthwise_weights",
    "depthwise-bias": ".packing_depthwise:depthwise_bias",
    "depthwise-multiplier": ".packing_depthwise:depthwise_multiplier",
}


def _find_recipe(kind: str) -> Recipe:
    found = RECIPES[kind]
    if not isinstance(found, str):
        return found
    module, function = found.split(":")
    return getattr(importlib.import_module(module, __package__), function)


def pack(recipe: dict[str, Any], tensors: Tensors) -> NDArray[np.uint8]:
    """Return the bytes that a recipe makes of the stored tensors."""
    made = np.ascontiguousarray(_find_recipe(recipe["kind"])(recipe, tensors))
    return made.reshape(-1).view(np.uint8)


def pack_all(recipes: list[dict[str, Any]], tensors: Tensors, size: int) -> NDArray[np.uint8]:
    """Return the parameter memory: each recipe's bytes at its `offset`, 64-byte aligned."""
    memory = aligned_bytes(size)
    for recipe in recipes:
        made = pack(recipe, tensors)
        memory[recipe["offset"] : recipe["offset"] + made.size] = made
    return memory


def aligned_bytes(size: int) -> NDArray[np.uint8]:
    """Return zeroed memory that begins on a cache line."""
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]

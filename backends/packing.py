"""Packed parameters: how stored int8 weights become what the kernels read, when an artifact loads.

A recipe is plain JSON. `pack(recipe, tensors)` is called once at compile time, to learn the size,
and once at load. NumPy only: no torch here.
"""

from __future__ import annotations

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


def _weight(recipe: dict[str, Any], tensors: Tensors) -> Array:
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


def _dot_weights(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """[group, block, run, step, lane, neighbour]: see kernels.dot_product."""
    weight = _weight(recipe, tensors)
    groups, lanes, neighbours = recipe["groups"], recipe["lanes"], recipe["neighbours"]
    first, count = recipe["channels"]
    out, depth, height, width = weight.shape
    weight = weight.reshape(groups, out // groups, depth, height, width)[:, first : first + count]
    # Runs are [height, width * pixel] where a kernel row is one run, else [height * width, depth].
    pixel = recipe["merged_pixel"]
    taps = weight.transpose(0, 1, 3, 4, 2)
    if pixel:
        padded = np.zeros((groups, count, height, width, pixel), np.int8)
        padded[..., :depth] = taps
        runs = padded.reshape(groups, count, height, width * pixel)
        runs = runs[..., : (width - 1) * pixel + depth]
    else:
        runs = taps.reshape(groups, count, height * width, depth)
    steps = -(-runs.shape[-1] // neighbours)
    blocks = -(-count // lanes)
    packed = np.zeros((groups, blocks * lanes, runs.shape[2], steps * neighbours), np.int8)
    packed[:, :count, :, : runs.shape[-1]] = runs
    packed = packed.reshape(groups, blocks, lanes, runs.shape[2], steps, neighbours)
    return packed.transpose(0, 1, 3, 4, 2, 5).astype(recipe["dtype"])


def _folded_bias(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """`bias - x_zero_point * sum(weights)` modulo 2**32, one an output channel."""
    weight = _weight(recipe, tensors)
    folded = -int(recipe["x_zero_point"]) * weight.sum((1, 2, 3), dtype=np.int64)
    if recipe["bias"] is not None:
        folded = folded + tensors[recipe["bias"]].astype(np.int64)
    return folded.astype(np.uint32, casting="unsafe").view(np.int32)


def _dot_bias(recipe: dict[str, Any], tensors: Tensors) -> Array:
    return _channels(recipe, _folded_bias(recipe, tensors))


def _dot_multiplier(recipe: dict[str, Any], tensors: Tensors) -> Array:
    return _channels(recipe, tensors[recipe["multiplier"]].astype(np.float32))


def _interleaved(recipe: dict[str, Any], values: Array) -> Array:
    """[block, half, ...]: channels in the order that interleaving 128-bit halves leaves them."""
    block = recipe["block"]
    order = [
        part * 8 + high * 4 + i for high in (0, 1) for part in range(block // 8) for i in range(4)
    ]
    starts = recipe["starts"]
    padded = np.zeros((max(starts) + block, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return np.stack([padded[start : start + block][order] for start in starts])


def _depthwise_weights(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """int16 [block, pair, channel, tap of the pair]: see kernels.depthwise."""
    weight = _weight(recipe, tensors)
    taps = weight.reshape(weight.shape[0], -1).astype(np.int16)
    if taps.shape[1] % 2:
        taps = np.concatenate([taps, np.zeros_like(taps[:, :1])], 1)
    return _interleaved(recipe, taps.reshape(len(taps), -1, 2)).transpose(0, 2, 1, 3)


def _depthwise_bias(recipe: dict[str, Any], tensors: Tensors) -> Array:
    return _interleaved(recipe, _folded_bias(recipe, tensors))


def _depthwise_multiplier(recipe: dict[str, Any], tensors: Tensors) -> Array:
    return _interleaved(recipe, tensors[recipe["multiplier"]].astype(np.float32))


RECIPES: dict[str, Callable[[dict[str, Any], Tensors], Array]] = {
    "affine": _affine,
    "entries": _entries,
    "raw": _raw,
    "constant": _constant,
    "table": _table,
    "dot-weights": _dot_weights,
    "dot-bias": _dot_bias,
    "dot-multiplier": _dot_multiplier,
    "depthwise-weights": _depthwise_weights,
    "depthwise-bias": _depthwise_bias,
    "depthwise-multiplier": _depthwise_multiplier,
}


def pack(recipe: dict[str, Any], tensors: Tensors) -> NDArray[np.uint8]:
    """Return the bytes that a recipe makes of the stored tensors."""
    made = np.ascontiguousarray(RECIPES[recipe["kind"]](recipe, tensors))
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

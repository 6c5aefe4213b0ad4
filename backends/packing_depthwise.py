"""Packing recipes of depthwise layers: what `kernels.depthwise` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .packing import folded_bias, int8_weight

Array = NDArray[Any]
Tensors = Mapping[str, Array]


def _blocks(recipe: dict[str, Any], values: Array) -> Array:
    """[block, ..., part, lane]: one entry a channel on the first axis, in the interleaved order.

    In each 128-bit part of a vector, interleaving leaves four neighbouring channels to each of
    `parts` vectors. The channels of a block stand `copies` times in it.
    """
    channels, parts, starts = recipe["channels"], recipe["parts"], recipe["starts"]
    padded = np.zeros((max(starts) + channels, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    blocks = np.stack([padded[start : start + channels] for start in starts])
    repeated = np.concatenate([blocks] * recipe["copies"], 1)
    rest = repeated.shape[2:]
    split = repeated.reshape(len(starts), -1, parts, 4, *rest)
    lanes = split.swapaxes(1, 2).reshape(len(starts), parts, -1, *rest)
    return np.moveaxis(lanes, (1, 2), (-2, -1))


def depthwise_weights(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """[block, kernel column, output row, group, part, lane, row of the group].

    `rows` holds for each output row and group the kernel's rows, -1 for none.
    """
    weight = int8_weight(recipe, tensors)
    filters = weight.reshape(len(weight), *weight.shape[-2:])
    # A row of zeros at the end, which -1 means.
    filters = np.concatenate([filters, np.zeros_like(filters[:, :1])], 1)
    taps = filters[:, np.array(recipe["rows"])]
    order = _blocks(recipe, taps.transpose(0, 4, 1, 2, 3))
    return np.moveaxis(order, 4, -1).astype(recipe["dtype"])


def depthwise_bias(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """int32 [block, part, lane]."""
    return _blocks(recipe, folded_bias(recipe, tensors))


def depthwise_multiplier(recipe: dict[str, Any], tensors: Tensors) -> Array:
    """float32 [block, part, lane]."""
    return _blocks(recipe, tensors[recipe["multiplier"]].astype(np.float32))

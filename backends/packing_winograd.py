"""Packed weights of Winograd's algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def winograd_weights(
    recipe: dict[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> NDArray[np.int8]:
    """Return int8 [block, pair, vector, tap, lane, 2] of [out, in, 3, 3].

    The pairs are of input channels, the lanes output channels; zeros fill what is missing.
    """
    first, count = recipe["channels"]
    lanes, vectors = recipe["lanes"], recipe["vectors"]
    weight = tensors[recipe["weight"]][first : first + count]
    channels = weight.shape[1]
    blocks, pairs = -(-count // (lanes * vectors)), -(-channels // 2)
    padded = np.zeros((blocks * vectors * lanes, 2 * pairs, 9), np.int8)
    padded[:count, :channels] = weight.reshape(count, channels, 9)
    split = padded.reshape(blocks, vectors, lanes, pairs, 2, 9)
    return np.ascontiguousarray(split.transpose(0, 3, 1, 5, 2, 4))

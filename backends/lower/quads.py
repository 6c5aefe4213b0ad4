"""Classes of quads: which `vpmaddubsw` computes exactly. See `kernels.hybrid`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# 255 * 128 is the largest multiple of 255 that int16 holds.
LIMIT = 128
# Quads are paired small with large, then moved one place against each other: more rounds find more.
ROUNDS = 64


@dataclass(frozen=True)
class Quads:
    """The quads of each block in the order in which the kernel reads them.

    Attributes:
        order: uint16: quad numbers, block by block: pairs side by side, single ones, wide ones.
        counts: int32 [blocks, 3]: pairs, single quads, wide quads.
    """

    order: NDArray[np.uint16]
    counts: NDArray[np.int32]


def classify(weights: NDArray[np.int8]) -> Quads:
    """Sort the quads of each block into classes; those of zeros are left out.

    Args:
        weights: [blocks, quads, channels, 4].
    """
    largest = _largest_sums(weights)
    zero = (largest == 0).all(-1)
    narrow = (largest <= LIMIT).all(-1) & ~zero
    partner = _pair_up(np.minimum(largest, LIMIT + 1).astype(np.uint8), narrow)
    order: list[NDArray[Any]] = []
    counts = np.zeros((len(weights), 3), np.int32)
    for block in range(len(weights)):
        mine = partner[block]
        first = np.flatnonzero(mine > np.arange(len(mine)))
        single = np.flatnonzero(narrow[block] & (mine < 0))
        wide = np.flatnonzero(~narrow[block] & ~zero[block])
        order += [np.stack([first, mine[first]], 1).reshape(-1), single, wide]
        counts[block] = len(first), len(single), len(wide)
    return Quads(np.concatenate(order).astype(np.uint16), counts)


def _largest_sums(weights: NDArray[np.int8]) -> NDArray[np.int16]:
    """Return int16 [blocks, quads, sums]: of each lane's two neighbours P, then N."""
    pairs = weights.astype(np.int16).reshape(*weights.shape[:2], -1, 2)
    positive, negative = np.maximum(pairs, 0).sum(-1), np.maximum(-pairs, 0).sum(-1)
    return np.concatenate([positive, negative], -1).astype(np.int16)


def _pair_up(largest: NDArray[np.uint8], narrow: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return each quad's partner in its block, -1 for none: both together keep to the limit."""
    blocks, quads, _ = largest.shape
    block = np.arange(blocks)[:, None]
    partner = np.full((blocks, quads), -1)
    size = np.where(narrow, largest.sum(-1, dtype=np.int64), np.iinfo(np.int64).max)
    left = np.argsort(size, axis=1, kind="stable")
    counts = narrow.sum(1)
    for shift in range(ROUNDS):
        half = counts // 2
        place = np.arange(half.max(initial=0))
        if not len(place):
            break
        wrapped = (place + shift) % np.maximum(half, 1)[:, None]
        small = left[:, place]
        large = np.take_along_axis(left, np.maximum(counts[:, None] - 1 - wrapped, 0), 1)
        fits = (largest[block, small] <= LIMIT - np.minimum(largest[block, large], LIMIT)).all(-1)
        fits &= place < half[:, None]
        which, where = np.nonzero(fits)
        a, b = small[which, where], large[which, where]
        partner[which, a], partner[which, b] = b, a
        # What is left moves together, still in order of size.
        taken = np.take_along_axis(partner, left, 1) >= 0
        beyond = np.arange(left.shape[1]) >= counts[:, None]
        kept = np.argsort(taken | beyond, axis=1, kind="stable")
        left = np.take_along_axis(left, kept, 1)
        counts = counts - 2 * fits.sum(1)
        left = left[:, : counts.max(initial=0)]
    return partner

"""Observers: what range of real values the quantized ones should cover.

One streaming histogram serves all three: its memory does not grow with the number of batches, and
the same batches in the same order give the same range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

BINS = 4096  # over [-limit, limit]; even, so that zero is an edge
_LARGEST = 2.0**100  # what is larger is counted as this; the range itself is not cut
_CANDIDATES = 48  # steps of the MSE search on each side


class Histogram:
    """Counts of the observed values over [-limit, limit]; limit doubles when a value exceeds it."""

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.limit = 0.0
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def observe(self, values: torch.Tensor) -> None:
        """Add a tensor of any shape."""
        flat = values.detach().float().flatten()
        if not flat.numel():
            return
        self.low = min(self.low, float(flat.min()))
        self.high = max(self.high, float(flat.max()))
        self._reach(min(max(abs(self.low), abs(self.high)), _LARGEST))
        if self.limit > 0:
            flat = flat.clamp(-self.limit, self.limit)
            self.counts += torch.histc(flat, BINS, -self.limit, self.limit).double().cpu()

    def _reach(self, needed: float) -> None:
        if needed == 0.0:
            return
        if self.limit == 0.0:
            self.limit = 2.0 ** math.ceil(math.log2(needed))
        while self.limit < needed:
            merged = self.counts.view(-1, 2).sum(1)
            self.counts = torch.zeros_like(self.counts)
            self.counts[BINS // 4 : 3 * BINS // 4] = merged
            self.limit *= 2.0

    @property
    def centers(self) -> torch.Tensor:
        """The middle of each bin, float64."""
        width = 2.0 * self.limit / BINS
        return (torch.arange(BINS, dtype=torch.float64) + 0.5) * width - self.limit


def min_max(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """Return the smallest and largest value seen."""
    del percentile
    return histogram.low, histogram.high


def percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """Return the range that leaves out (100 - percentile) / 2 per cent at each end."""
    if histogram.limit == 0.0:
        return histogram.low, histogram.high
    tail = (1.0 - percentile / 100.0) / 2.0
    share = torch.cumsum(histogram.counts, 0) / histogram.counts.sum()
    width = 2.0 * histogram.limit / BINS
    first = int(torch.searchsorted(share, tail, right=True))
    last = int(torch.searchsorted(share, 1.0 - tail))
    low = -histogram.limit + first * width
    high = -histogram.limit + (min(last, BINS - 1) + 1) * width
    return max(low, histogram.low), min(high, histogram.high)


def mse_range(histogram: Histogram, percentile: float, levels: int = 255) -> tuple[float, float]:
    """Return the range whose quantization to `levels` steps has the least mean squared error.

    Both ends shrink together, by the factors 1, 1 - 1/48, ...; the error is the rounding's, step
    squared over 12 inside the range, plus the clipping's outside.
    """
    del percentile
    if histogram.limit == 0.0:
        return histogram.low, histogram.high
    centers, counts = histogram.centers, histogram.counts
    best, best_error = (histogram.low, histogram.high), math.inf
    for step in range(_CANDIDATES):
        factor = 1.0 - step / _CANDIDATES
        low, high = min(histogram.low * factor, 0.0), max(histogram.high * factor, 0.0)
        clipped = centers - torch.clamp(centers, low, high)
        rounding = ((high - low) / levels) ** 2 / 12.0
        error = float((counts * (clipped**2 + rounding * (clipped == 0))).sum())
        if error < best_error:
            best, best_error = (low, high), error
    return best


OBSERVERS: dict[str, Callable[[Histogram, float], tuple[float, float]]] = {
    "min-max": min_max,
    "percentile": percentile_range,
    "mse": mse_range,
}


@dataclass(frozen=True)
class QParams:
    """How real values map to integers: q = clamp(rne(x / scale) + zero_point, lo, hi).

    The scale is a float32 value held in a Python float.
    """

    scale: float
    zero_point: int
    lo: int
    hi: int

    @property
    def dtype(self) -> torch.dtype:
        """The narrowest dtype: uint8 if nothing is negative, else int8."""
        return torch.uint8 if self.lo >= 0 else torch.int8


def choose_qparams(low: float, high: float, lo: int, hi: int, *, symmetric: bool) -> QParams:
    """Return the parameters that map [low, high] (widened to hold 0) to [lo, hi]."""
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        middle = (lo + hi + 1) // 2
        scale = as_float32(max(-low, high) / (hi - middle))
        return QParams(scale or 1.0, middle, lo, hi)
    scale = as_float32((high - low) / (hi - lo))
    if scale == 0.0:
        return QParams(1.0, lo, lo, hi)
    zero_point = lo + round(-low / scale)
    return QParams(scale, min(max(zero_point, lo), hi), lo, hi)


def as_float32(value: float) -> float:
    """Round to the nearest float32 that is not subnormal; smaller ones become 0."""
    rounded = float(torch.tensor(value, dtype=torch.float32))
    return rounded if abs(rounded) >= torch.finfo(torch.float32).tiny else 0.0


def weight_scales(
    weight: torch.Tensor, observer: str, *, per_channel: bool, limit: int = 127
) -> torch.Tensor:
    """Return symmetric scales of a weight [out, ...]: float32 [out], or [] per tensor.

    A channel of zeros takes the mean of the others' scales, since any scale is exact for it.
    """
    rows = weight.detach().flatten(1) if per_channel else weight.detach().reshape(1, -1)
    peak = rows.abs().amax(1).double()
    factor = _weight_clipping(rows.double(), peak, limit) if observer == "mse" else 1.0
    scales = peak * factor / limit
    used = scales > torch.finfo(torch.float32).tiny
    filler = scales[used].mean() if bool(used.any()) else torch.tensor(1.0 / limit)
    scales = torch.where(used, scales, filler.double()).float()
    return scales if per_channel else scales.reshape(())


def _weight_clipping(rows: torch.Tensor, peak: torch.Tensor, limit: int) -> torch.Tensor:
    """Return, for each row, the factor on its peak that gives the least squared error."""
    best = torch.ones_like(peak)
    best_error = torch.full_like(peak, math.inf)
    for step in range(20):
        factor = 1.0 - 0.02 * step
        scale = torch.where(peak > 0, peak * factor / limit, torch.ones_like(peak))[:, None]
        error = ((torch.round(rows / scale).clamp(-limit, limit) * scale - rows) ** 2).sum(1)
        better = error < best_error
        best = torch.where(better, torch.full_like(best, factor), best)
        best_error = torch.where(better, error, best_error)
    return best

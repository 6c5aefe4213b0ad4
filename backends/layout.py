"""How a tensor lies in memory: a shape, an element step for each axis, and where it begins."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

Halo = tuple[int, int, int, int]
NO_HALO: Halo = (0, 0, 0, 0)

# Bytes that may be read or written past the end of a tensor by a vector instruction.
SLACK = 64


@dataclass(frozen=True)
class Layout:
    """Memory of one tensor.

    Attributes:
        shape: The logical sizes (NCHW where there are four).
        steps: Elements from one entry of an axis to the next.
        base: Element offset of the first entry.
        size: Elements in all, halo and padding included.
        dtype: Element type in memory.
        halo: Rows and columns around each image: (top, left, bottom, right).
    """

    shape: tuple[int, ...]
    steps: tuple[int, ...]
    base: int
    size: int
    dtype: str
    halo: Halo = NO_HALO

    @property
    def pixels(self) -> tuple[int, int, int, int]:
        """(images, height, width, channels); without height and width, rows count as images."""
        if len(self.shape) == 4:
            images, channels, height, width = self.shape
            return images, height, width, channels
        return prod(self.shape[:-1]), 1, 1, self.shape[-1] if self.shape else 1

    @property
    def pixel_steps(self) -> tuple[int, int, int]:
        """Elements from one image, row and pixel to the next."""
        if len(self.shape) == 4:
            return self.steps[0], self.steps[2], self.steps[3]
        row = self.steps[-2] if len(self.steps) > 1 else self.size
        return row, row, row


def dense_layout(shape: tuple[int, ...], dtype: str) -> Layout:
    """Return a row-major layout without gaps: what NumPy and TVM's own kernels use."""
    steps = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        steps[axis] = steps[axis + 1] * shape[axis + 1]
    return Layout(shape, tuple(steps), 0, prod(shape), dtype)


def vector_layout(
    shape: tuple[int, ...], dtype: str, halo: Halo = NO_HALO, compact: bool = False
) -> Layout:
    """Return the layout of the integer region: channels last, in multiples of 8.

    Args:
        shape: Logical sizes; four of them mean NCHW, of others the last axis is the channels.
        dtype: Element type in memory.
        halo: Border of each image, for four axes.
        compact: Keep fewer than 8 channels unpadded (an image that only dense kernels read).
    """
    if len(shape) != 4:
        channels = shape[-1] if shape else 1
        padded = -(-channels // 8) * 8
        rows = dense_layout((*shape[:-1], padded), dtype)
        return Layout(shape, rows.steps[: len(shape)], 0, rows.size, dtype)
    images, channels, height, width = shape
    top, left, bottom, right = halo
    pixel = channels if compact and channels < 8 else -(-channels // 8) * 8
    row = (width + left + right) * pixel
    image = (height + top + bottom) * row
    base = top * row + left * pixel
    return Layout(shape, (image, 1, row, pixel), base, images * image, dtype, halo)


def loop_nest(
    sizes: tuple[int, ...], *steps: tuple[int, ...], inner: int = 0
) -> tuple[tuple[int, ...], list[tuple[int, ...]]] | None:
    """Return an equal loop nest of exactly four axes, or None if it needs more.

    Args:
        sizes: Extent of each axis.
        steps: For each operand, its element step along each axis.
        inner: The operand that shall be walked in memory order.
    """
    axes = [(size, tuple(s[i] for s in steps)) for i, size in enumerate(sizes) if size != 1]
    axes.sort(key=lambda axis: -abs(axis[1][inner]))
    merged: list[tuple[int, tuple[int, ...]]] = []
    for size, step in axes:
        if merged and all(a == b * size for a, b in zip(merged[-1][1], step, strict=True)):
            merged[-1] = (merged[-1][0] * size, step)
        else:
            merged.append((size, step))
    if len(merged) > 4:
        return None
    one = (1, tuple(0 for _ in steps))
    merged = [one] * (4 - len(merged)) + merged
    if not axes:
        merged[-1] = (1, tuple(1 for _ in steps))
    return tuple(m[0] for m in merged), [tuple(m[1][i] for m in merged) for i in range(len(steps))]

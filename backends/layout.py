"""How a tensor lies in memory: a shape, an element step for each axis, and where it begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
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


def row_layout(shape: tuple[int, ...], dtype: str, multiple: int = 8) -> Layout:
    """Return a row-major layout whose rows (the last axis) are padded to a multiple."""
    columns = shape[-1] if shape else 1
    rows = dense_layout((*shape[:-1], -(-columns // multiple) * multiple), dtype)
    return Layout(shape, rows.steps[: len(shape)], 0, rows.size, dtype)


def vector_layout(
    shape: tuple[int, ...], dtype: str, halo: Halo = NO_HALO, compact: int = 0
) -> Layout:
    """Return the layout of the integer region: channels last, in multiples of 8.

    Args:
        shape: Logical sizes; four of them mean NCHW, of others the last axis is the channels.
        dtype: Element type in memory.
        halo: Border of each image, for four axes.
        compact: What fewer than 8 channels are padded to a multiple of, in an image that only dense
            kernels read; 0: to 8.
    """
    if len(shape) != 4:
        return row_layout(shape, dtype)
    images, channels, height, width = shape
    top, left, bottom, right = halo
    multiple = compact if compact and channels < 8 else 8
    pixel = -(-channels // multiple) * multiple
    row = (width + left + right) * pixel
    image = (height + top + bottom) * row
    base = top * row + left * pixel
    return Layout(shape, (image, 1, row, pixel), base, images * image, dtype, halo)


def as_rows(layout: Layout) -> Layout | None:
    """Return a layout whose last axis lies side by side, or None if it doesn't."""
    if not layout.shape or layout.steps[-1] == 1:
        return layout
    return replace(layout, steps=(*layout.steps[:-1], 1)) if layout.shape[-1] == 1 else None


def merge_last(layout: Layout, axes: int) -> Layout | None:
    """Return a layout with its last axes seen as one that lies side by side, or None."""
    kept = len(layout.shape) - axes
    step = 1
    for size, length in list(zip(layout.shape, layout.steps, strict=True))[kept:][::-1]:
        if size > 1 and length != step:
            return None
        step *= size
    return replace(layout, shape=(*layout.shape[:kept], step), steps=(*layout.steps[:kept], 1))


def as_matrix(layout: Layout) -> Layout | None:
    """Return a layout as one of two axes, rows evenly far from each other, or None if it isn't.

    Padding behind each row is some multiple of 8 values, or another part of the tensor.
    """
    rows = as_rows(layout)
    if rows is None:
        return None
    columns = rows.shape[-1] if rows.shape else 1
    step = 0
    count = 1
    for size, length in zip(reversed(rows.shape[:-1]), reversed(rows.steps[:-1]), strict=True):
        if size == 1:
            continue
        if count == 1:
            step = length
        elif length != step * count:
            return None
        count *= size
    if count == 1:
        step = -(-columns // 8) * 8
    if step % 8 or step < columns:
        return None
    return replace(rows, shape=(count, columns), steps=(step, 1))


def as_vector(layout: Layout) -> Layout | None:
    """Return a layout in the form of `vector_layout`, or None if it is another one.

    The steps of axes of size 1 mean nothing; they become what `vector_layout` would have.
    """
    shape, steps = layout.shape, layout.steps
    if len(shape) != 4:
        matrix = as_matrix(layout)
        if matrix is None:
            return None
        steps = dense_layout((*shape[:-1], matrix.steps[0]), layout.dtype).steps
        return replace(layout, steps=steps[: len(shape)])
    _, channels, height, width = shape
    pixel = steps[3] if width > 1 else -(-channels // 8) * 8
    row = steps[2] if height > 1 else pixel * width
    image = steps[0] if shape[0] > 1 else row * height
    beside = steps[1] == 1 or channels == 1
    # A pixel of fewer than 8 channels may be compact; one of more than it needs is a slice.
    compact = (channels, -(-channels // 4) * 4) if channels < 8 else ()
    if not beside or pixel not in (-(-channels // 8) * 8, *compact):
        return None
    if row < pixel * width or image < row * height or (pixel % 8 == 0 and row % 8):
        return None
    return replace(layout, steps=(image, 1, row, pixel))


def as_two_axes(
    shape: tuple[int, ...], x: Layout, y: Layout, *, inner: int
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Return the loops over rows and columns of layouts whose last axes alone have gaps."""
    steps = [(layout.steps[-2], layout.steps[-1]) for layout in (x, y)]
    nest = loop_nest((prod(shape[:-1]), shape[-1]), *steps, inner=inner)
    assert nest is not None
    return nest


def loops_over(
    shape: tuple[int, ...], x: Layout, y: Layout, *, inner: int
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Return the loops over a tensor; of more than four axes, the leading ones are dense."""
    loops = loop_nest(shape, x.steps, y.steps, inner=inner)
    return loops or as_two_axes(shape, x, y, inner=inner)


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

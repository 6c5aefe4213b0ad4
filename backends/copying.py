"""Copies and fills of values in memory, and the kernel that maps one value to another.

Where the positions step evenly along each axis a copy is a loop nest, else it goes through a table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.ir.errors import OperatorError

from .kernels import Kernel
from .layout import Layout, loop_nest
from .plan import Plan, Pointer
from .value import Value

Offsets = NDArray[np.int64]
# Below this many values a copy takes less time than waking a thread.
PARALLEL_VALUES = 200_000
_WORD = 4


def fill_halo(plan: Plan, value: Value, zero_point: int, *, once: bool = False) -> None:
    """Write the zero point around each image of a value, at each call or once."""
    if not 0 <= zero_point <= 255:
        raise OperatorError(f"zero point {zero_point} is outside 8 bits", where=value.name)
    layout = value.layout
    images, height, width, _ = layout.pixels
    image, row, pixel = layout.pixel_steps
    # From the end of a row's last pixel to the begin of the next row's first one.
    gap = row - width * pixel
    tail_at = layout.base + (height - 1) * row + width * pixel
    gaps, first_gap = height - 1 if gap else 0, layout.base + width * pixel
    sizes = [image, layout.base, gaps, first_gap, row, gap, tail_at, image - tail_at]
    _emit_fill(plan, value, zero_point, images, sizes, f"{value.name} border", once=once)


def fill(plan: Plan, value: Value, number: int, label: str) -> None:
    """Write one number all over a value's memory."""
    _emit_fill(plan, value, number, 1, [0, value.layout.size, *[0] * 6], label)


def _emit_fill(
    plan: Plan,
    value: Value,
    number: int,
    images: int,
    sizes: list[int],
    label: str,
    *,
    once: bool = False,
) -> None:
    """Append one call of the fill kernel; `sizes` are all in elements, but for the third."""
    kernel = Kernel.of("fill-halo", dtype=value.layout.dtype)
    if plan.target.capability is not None:
        # Four bytes a thread: pixels and rows are whole words on a GPU.
        kernel = Kernel.of("cuda-fill-halo")
        number = int(np.array([number] * _WORD, np.uint8).view(np.int32)[0])
        sizes = [size if i == 2 else size // _WORD for i, size in enumerate(sizes)]
    plan.call(kernel, [value], [number, images, *sizes], label, once=once)


def offsets(layout: Layout) -> Offsets:
    """Return the memory offset of each logical entry, in the logical shape."""
    total = np.full(layout.shape, layout.base, np.int64)
    for axis, step in enumerate(layout.steps):
        index = np.arange(layout.shape[axis], dtype=np.int64) * step
        total += index.reshape([-1 if a == axis else 1 for a in range(len(layout.shape))])
    return total


def even_steps(positions: Offsets) -> tuple[int, tuple[int, ...]] | None:
    """Return (base, step along each axis) if positions step evenly, else None."""
    base = int(positions.flat[0])
    steps: list[int] = []
    expected = np.full(positions.shape, base, np.int64)
    for axis, size in enumerate(positions.shape):
        step = int(np.take(positions, 1, axis).flat[0]) - base if size > 1 else 0
        steps.append(step)
        ramp = np.arange(size, dtype=np.int64) * step
        expected += ramp.reshape([-1 if a == axis else 1 for a in range(positions.ndim)])
    return (base, tuple(steps)) if np.array_equal(expected, positions) else None


def copy_offsets(
    plan: Plan, source: Value, target: Value, x: Offsets, y: Offsets, label: str
) -> None:
    """Copy source[x[i]] to target[y[i]] for each i; x and y have one shape."""
    if x.size == 0:
        return
    for shape in _candidate_shapes(x.shape, source, target):
        x_even, y_even = even_steps(x.reshape(shape)), even_steps(y.reshape(shape))
        if x_even is None or y_even is None:
            continue
        (x_base, x_steps), (y_base, y_steps) = x_even, y_even
        nest = loop_nest(shape, x_steps, y_steps, inner=1)
        if nest is not None:
            emit_map(plan, "copy", source, target, nest, label, bases=(x_base, y_base))
            return
    for pieces in _periods(x.shape):
        if _copy_pieces(plan, source, target, [(x[p], y[p]) for p in pieces], label):
            return
    _gather(plan, source, target, x, y, label)


def _periods(shape: tuple[int, ...]) -> list[list[tuple[slice, ...]]]:
    """Ways to cut an image into pieces of every n-th row and column, or channel.

    Inside one of them, what a pixel shuffle or a nearest upsampling moves steps evenly.
    """
    if len(shape) != 4:
        return []
    every, ways = slice(None), []
    for n in (2, 3, 4):
        if shape[2] % n == 0 and shape[3] % n == 0 and shape[2] > n:
            firsts = [(i, j) for i in range(n) for j in range(n)]
            ways.append([(every, every, slice(i, None, n), slice(j, None, n)) for i, j in firsts])
        if shape[1] % (n * n) == 0:
            ways.append([(every, slice(i, None, n * n), every, every) for i in range(n * n)])
    return ways


def _copy_pieces(
    plan: Plan,
    source: Value,
    target: Value,
    pieces: list[tuple[Offsets, Offsets]],
    label: str,
) -> bool:
    """Copy piece by piece if each of them steps evenly; return whether that was so."""
    found = []
    for x, y in pieces:
        x_even, y_even = even_steps(x), even_steps(y)
        loops = x_even and y_even and loop_nest(x.shape, x_even[1], y_even[1], inner=1)
        if not x_even or not y_even or not loops:
            return False
        found.append((loops, (x_even[0], y_even[0])))
    for loops, bases in found:
        emit_map(plan, "copy", source, target, loops, label, bases=bases)
    return True


def _gather(plan: Plan, source: Value, target: Value, x: Offsets, y: Offsets, label: str) -> None:
    """Copy through a table of runs: stretches that lie side by side in both."""
    even = even_steps(y)
    if even is not None:  # in the target's memory order
        axes = sorted(range(y.ndim), key=lambda axis: -abs(even[1][axis]))
        x, y = x.transpose(axes).ravel(), y.transpose(axes).ravel()
    else:
        order = np.argsort(y, axis=None, kind="stable")
        x, y = x.ravel()[order], y.ravel()[order]
    ends = np.nonzero((np.diff(x) != 1) | (np.diff(y) != 1))[0] + 1
    run = int(np.gcd.reduce(np.append(ends, x.size)))
    pairs = np.stack([x[::run], y[::run]], 1).astype(np.int32)
    name = plan.store(f"{label}/{target.name}/{source.name}/positions{len(plan.steps)}", pairs)
    kernel = Kernel.of(
        "gather",
        dtype=source.layout.dtype,
        parallel=plan.parallel(x.size, PARALLEL_VALUES),
    )
    table = plan.parameter("raw", tensor=name)
    plan.call(kernel, [source, target, table], [len(pairs), run], label)


def _candidate_shapes(shape: tuple[int, ...], *values: Value) -> list[tuple[int, ...]]:
    """The logical shapes along which positions may step evenly, each once."""
    size = int(np.prod(shape))
    found = [shape] + [v.layout.shape for v in values if int(np.prod(v.layout.shape)) == size]
    return list(dict.fromkeys(found))


def emit_map(
    plan: Plan,
    operator: str,
    source: Value,
    target: Value,
    nest: tuple[tuple[int, ...], list[tuple[int, ...]]],
    label: str,
    *,
    bases: tuple[int, int] | None = None,
    table: Any = None,
    numbers: tuple[float, int, int, int, int] = (1.0, 0, 0, 0, 0),
) -> None:
    """Append one call of the map kernel.

    Args:
        plan: What it is appended to.
        operator: See kernels.elementwise.build_map.
        source: Read.
        target: Written.
        nest: Extents, and the steps of source and target.
        label: The layer.
        bases: Element offsets where both begin; by default those of their layouts.
        table: A parameter with 256 entries.
        numbers: scale, x_zero_point, lo, hi, zero_point.
    """
    sizes, (x_steps, y_steps) = nest
    x_base, y_base = bases or (source.layout.base, target.layout.base)
    kernel = Kernel.of(
        "map",
        operator=operator,
        x_dtype=source.layout.dtype,
        y_dtype=target.layout.dtype,
        unit_x=x_steps[3] == 1,
        unit_y=y_steps[3] == 1,
        parallel=plan.parallel(int(np.prod(sizes)), PARALLEL_VALUES) and sizes[0] * sizes[1] > 1,
    )
    x, y = Pointer(source, x_base), Pointer(target, y_base)
    plan.call(
        kernel,
        [x, y, table if table is not None else x],
        [*sizes, *x_steps, *y_steps, float(np.float32(numbers[0])), *numbers[1:]],
        label,
    )


def copy_into(plan: Plan, source: Value, target: Value, label: str) -> None:
    """Copy a value to another one of the same logical shape."""
    copy_offsets(plan, source, target, offsets(source.layout), offsets(target.layout), label)


def copy_reshaped(plan: Plan, source: Value, target: Value, label: str) -> None:
    """Copy a value to one of another logical shape, both in row-major order."""
    x, y = offsets(source.layout).ravel(), offsets(target.layout).ravel()
    copy_offsets(plan, source, target, x, y, label)

"""Softmax and layer normalization on a GPU: the threads of a block share a row.

The arguments and formulas are those of `kernels.normalization`, value for value: maxima and sums
are of integers, so that their order doesn't matter, and each float32 operation rounds once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..kernels.normalization import DEVIATION_LIMIT, FRACTION
from ..kernels.statements import T, kernel, let, loop
from .threads import Launch, do, get, registers

THREADS = 128
_BOUNDS = (("lo", "int32"), ("hi", "int32"), ("zero_point", "int32"))


def build_softmax(storage: str, unit_x: bool, unit_y: bool, parallel: bool = False) -> Any:
    """Return the kernel; see `kernels.normalization.build_softmax`."""
    del unit_x, unit_y, parallel  # the steps are constants by now

    def body(x: Any, y: Any, table: Any, row_table: Any, **numbers: Any) -> None:
        count, step = numbers["count"], numbers["x_step"]
        with Launch((numbers["rows"], 1, 1), THREADS) as (row, _, _, thread):
            x_at, y_at = let(row_table[2 * row]), let(row_table[2 * row + 1])

            def value(j: Any) -> Any:
                return T.Cast("int32", x[x_at + j * step])

            largest = _reduced(thread, count, value, T.max)
            total = _reduced(thread, count, lambda j: table[largest - value(j)], _sum)
            ratio = let(get("float32", "divide", numbers["multiplier"], T.Cast("float32", total)))
            with _each(thread, count) as j:
                result = _ended(table[largest - value(j)], ratio, numbers)
                T.buffer_store(y, T.Cast(storage, result), [y_at + j * numbers["y_step"]])

    pointers = [("x", storage), ("y", storage), ("table", "int32"), ("row_table", "int32")]
    sizes = [(name, "int32") for name in ("rows", "count", "x_step", "y_step")]
    return kernel(pointers, [*sizes, ("multiplier", "float32"), *_BOUNDS], body)


def build_layer_norm(storage: str, parallel: bool = False) -> Any:
    """Return the kernel; see `kernels.normalization.build_layer_norm`."""
    del parallel

    def body(x: Any, y: Any, gain: Any, offset: Any, row_table: Any, **numbers: Any) -> None:
        count = numbers["count"]
        with Launch((numbers["rows"], 1, 1), THREADS) as (row, _, _, thread):
            x_at, y_at = let(row_table[2 * row]), let(row_table[2 * row + 1])

            def centred(j: Any) -> Any:
                return T.Cast("int32", x[x_at + j]) - numbers["x_zero_point"]

            total = _reduced(thread, count, centred, _sum)
            squares = _reduced(thread, count, lambda j: centred(j) * centred(j), _sum)
            inverse = _inverse_root(_variance(total, squares, numbers))
            with _each(thread, count) as j:
                deviation = T.Cast("float32", centred(j) * count - total)
                scaled = deviation * inverse * gain[j]
                limit = T.float32(DEVIATION_LIMIT)
                nearest = get("int32", "nearest", T.max(T.min(scaled, limit), -limit))
                result = _ended(nearest + offset[j], T.float32(FRACTION), numbers)
                T.buffer_store(y, T.Cast(storage, result), [y_at + j])

    pointers = [("x", storage), ("y", storage), ("gain", "float32"), ("offset", "int32")]
    names = ("rows", "count", "epsilon_high", "epsilon_low", "x_zero_point")
    sizes = [(name, "int32") for name in names]
    return kernel([*pointers, ("row_table", "int32")], [*sizes, *_BOUNDS], body)


def _sum(a: Any, b: Any) -> Any:
    return a + b


@contextmanager
def _each(thread: Any, count: Any) -> Iterator[Any]:
    """A frame: what is emitted inside it runs for every place of a row, in turns of the threads."""
    with loop(T.truncdiv(count + (THREADS - 1), THREADS)) as turn:
        j = let(turn * THREADS + thread)
        with T.If(j < count), T.Then():
            yield j


def _reduced(
    thread: Any, count: Any, value: Callable[[Any], Any], join: Callable[[Any, Any], Any]
) -> Any:
    """Return the sum of all values of a row, or their maximum: 0 at least."""
    mine = registers(1, "int32")
    T.buffer_store(mine, T.int32(0), [0])
    with _each(thread, count) as j:
        T.buffer_store(mine, join(mine[0], value(j)), [0])
    all_threads = T.alloc_buffer((THREADS,), "int32", scope="shared")
    T.buffer_store(all_threads, mine[0], [thread])
    half = THREADS // 2
    while half:
        do("sync")
        with T.If(thread < half), T.Then():
            joined = join(all_threads[thread], all_threads[thread + half])
            T.buffer_store(all_threads, joined, [thread])
        half //= 2
    do("sync")
    return let(all_threads[0])


def _variance(total: Any, squares: Any, numbers: dict[str, Any]) -> Any:
    """Return `count * squares - total**2 + epsilon`, exactly, then as the nearest float32."""

    def wide(value: Any) -> Any:
        return T.Cast("int64", value)

    epsilon = wide(numbers["epsilon_high"]) * T.int64(1 << 31) + wide(numbers["epsilon_low"])
    exact = wide(numbers["count"]) * wide(squares) - wide(total) * wide(total) + epsilon
    return T.Cast("float32", exact)


def _inverse_root(variance: Any) -> Any:
    """Return 1 / sqrt(variance), 0 where it is 0."""
    root = let(get("float32", "sqrt", variance))
    inverse = registers(1, "float32")
    T.buffer_store(inverse, T.float32(0), [0])
    with T.If(root > T.float32(0)), T.Then():
        T.buffer_store(inverse, get("float32", "divide", T.float32(1), root), [0])
    return let(inverse[0])


def _ended(total: Any, multiplier: Any, numbers: dict[str, Any]) -> Any:
    """Return the requantized sum."""
    bounds = [T.Cast("float32", numbers[name]) for name in ("lo", "hi")]
    return get("int32", "requantize", total, multiplier, *bounds) + numbers["zero_point"]

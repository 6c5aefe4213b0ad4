"""Loops of our own for what Relax has no lowering of: running sums, sorting, scattering.

Each builder returns a TensorIR function on buffers of static shapes, without blocks, so that it
joins a lowered Relax module as it is. Axes before and after the one worked on are `outer` and
`inner` steps. Parallel loops say which iterations are independent; what is allocated inside of them
is each iteration's own.
"""

# TVMScript spells the type of a buffer as a call.
# pyright: reportInvalidTypeForm=false, reportMissingModuleSource=false

from math import prod
from typing import Any

from tvm.script import tirx as T

Shape = tuple[int, ...]


def _split(shape: Shape, axis: int) -> tuple[int, int, int]:
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def build_running(shape: Shape, dtype: str, axis: int, product: bool) -> Any:
    """Running sums (or products) along an axis; floats are summed in float64, as torch does."""
    outer, size, inner = _split(shape, axis)
    wide = "float64" if dtype == "float32" else dtype

    @T.prim_func(private=True)
    def running(x: T.Buffer(shape, dtype), y: T.Buffer(shape, dtype)) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((prod(shape),), dtype, data=x.data)
        Y = T.decl_buffer((prod(shape),), dtype, data=y.data)
        for o in T.parallel(outer):
            for i in T.parallel(inner):
                total = T.alloc_buffer((1,), wide)
                total[0] = T.Cast(wide, 1 if product else 0)
                for j in T.serial(size):
                    at: T.let[T.int32] = (o * size + j) * inner + i
                    if product:
                        total[0] = total[0] * T.Cast(wide, X[at])
                    else:
                        total[0] = total[0] + T.Cast(wide, X[at])
                    Y[at] = T.Cast(dtype, total[0])

    return running


def build_bit_cast(shape: Shape, dtype: str, wanted: str) -> Any:
    """The same bits as values of another dtype of the same size."""

    @T.prim_func(private=True)
    def bit_cast(x: T.Buffer(shape, dtype), y: T.Buffer(shape, wanted)) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((prod(shape),), dtype, data=x.data)
        Y = T.decl_buffer((prod(shape),), wanted, data=y.data)
        for i in T.parallel(prod(shape)):
            Y[i] = T.reinterpret(wanted, X[i])

    return bit_cast


def _goes_before(left: Any, right: Any, dtype: str, descending: bool) -> Any:
    """Whether `left` comes strictly before `right`; a NaN counts as the largest, as in torch."""
    smaller = right < left if descending else left < right
    if not dtype.startswith("float"):
        return smaller
    a, b = (left, right) if descending else (right, left)
    return T.Or(smaller, T.And(T.isnan(a), T.Not(T.isnan(b))))


def build_sort(shape: Shape, dtype: str, axis: int, kept: int, descending: bool) -> Any:
    """The first `kept` values in order along an axis, and where each one stood; stable.

    A merge sort from runs of one upwards, on a copy of each line and the positions beside it. Lines
    follow each other, as they share the copy.
    """
    outer, size, inner = _split(shape, axis)
    result = (*shape[:axis], kept, *shape[axis + 1 :])
    levels = max(size - 1, 0).bit_length()
    sorted_at = levels % 2 * size

    @T.prim_func(private=True)
    def sort(
        x: T.Buffer(shape, dtype),
        values: T.Buffer(result, dtype),
        indices: T.Buffer(result, "int64"),
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((prod(shape),), dtype, data=x.data)
        V = T.decl_buffer((prod(result),), dtype, data=values.data)
        I = T.decl_buffer((prod(result),), "int64", data=indices.data)  # noqa: E741
        # One entry more: a run that is used up is looked at, though not taken from.
        key = T.alloc_buffer((2 * size + 1,), dtype)
        place = T.alloc_buffer((2 * size + 1,), "int32")
        head = T.alloc_buffer((2,), "int32")
        for o in T.serial(outer):
            for i in T.serial(inner):
                for j in T.serial(size):
                    key[j] = X[(o * size + j) * inner + i]
                    place[j] = j
                for level in T.serial(levels):
                    source: T.let[T.int32] = level % 2 * size
                    target: T.let[T.int32] = size - level % 2 * size
                    width: T.let[T.int32] = T.shift_left(1, level)
                    for run in T.serial((size + 2 * width - 1) // (2 * width)):
                        start: T.let[T.int32] = run * 2 * width
                        middle: T.let[T.int32] = T.min(start + width, size)
                        end: T.let[T.int32] = T.min(start + 2 * width, size)
                        head[0] = start
                        head[1] = middle
                        for j in T.serial(end - start):
                            if T.Or(
                                head[0] >= middle,
                                T.And(
                                    head[1] < end,
                                    _goes_before(
                                        key[source + head[1]],
                                        key[source + head[0]],
                                        dtype,
                                        descending,
                                    ),
                                ),
                            ):
                                key[target + start + j] = key[source + head[1]]
                                place[target + start + j] = place[source + head[1]]
                                head[1] = head[1] + 1
                            else:
                                key[target + start + j] = key[source + head[0]]
                                place[target + start + j] = place[source + head[0]]
                                head[0] = head[0] + 1
                for j in T.serial(kept):
                    V[(o * kept + j) * inner + i] = key[sorted_at + j]
                    I[(o * kept + j) * inner + i] = T.Cast("int64", place[sorted_at + j])

    return sort


def build_rank(shape: Shape, dtype: str, axis: int, kept: int, descending: bool) -> Any:
    """The same as `build_sort` for many threads: each value counts those that come before it."""
    outer, size, inner = _split(shape, axis)
    result = (*shape[:axis], kept, *shape[axis + 1 :])

    @T.prim_func(private=True)
    def rank(
        x: T.Buffer(shape, dtype),
        values: T.Buffer(result, dtype),
        indices: T.Buffer(result, "int64"),
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((prod(shape),), dtype, data=x.data)
        V = T.decl_buffer((prod(result),), dtype, data=values.data)
        I = T.decl_buffer((prod(result),), "int64", data=indices.data)  # noqa: E741
        for o in T.parallel(outer):
            for j in T.parallel(size):
                for i in T.parallel(inner):
                    before = T.alloc_buffer((1,), "int32")
                    before[0] = 0
                    own: T.let = X[(o * size + j) * inner + i]
                    for k in T.serial(size):
                        other: T.let = X[(o * size + k) * inner + i]
                        if T.Or(
                            _goes_before(other, own, dtype, descending),
                            T.And(k < j, T.Not(_goes_before(own, other, dtype, descending))),
                        ):
                            before[0] = before[0] + 1
                    if before[0] < kept:
                        V[(o * kept + before[0]) * inner + i] = own
                        I[(o * kept + before[0]) * inner + i] = T.Cast("int64", j)

    return rank


def _offset(i: Any, counts: Shape, shape: Shape) -> Any:
    """The offset in `shape` of entry `i` of a box `counts` at its corner."""
    total = T.int32(0)
    for axis in range(len(counts)):
        index = i // prod(counts[axis + 1 :]) % counts[axis]
        total = total + index * prod(shape[axis + 1 :])
    return total


def build_scatter(
    shape: Shape, dtype: str, counts: Shape, source: Shape, axis: int, reduction: str
) -> Any:
    """A copy of x where entries named by an index along `axis` are set, or combined.

    Along the axis one follows the other, as several may name one entry; lines are independent.

    Args:
        shape: Of x.
        dtype: Of x and the source.
        counts: Shape of the index, int64.
        source: Shape of what is written, at least `counts`.
        axis: Which axis the index counts.
        reduction: "set", "sum", "prod", "amax" or "amin".
    """
    step = prod(shape[axis + 1 :])
    size = shape[axis]
    outer, lines, inner = _split(counts, axis)
    line = (*counts[:axis], 1, *counts[axis + 1 :])

    @T.prim_func(private=True)
    def scatter(
        x: T.Buffer(shape, dtype),
        index: T.Buffer(counts, "int64"),
        updates: T.Buffer(source, dtype),
        y: T.Buffer(shape, dtype),
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        X = T.decl_buffer((prod(shape),), dtype, data=x.data)
        Y = T.decl_buffer((prod(shape),), dtype, data=y.data)
        named = T.decl_buffer((prod(counts),), "int64", data=index.data)
        U = T.decl_buffer((prod(source),), dtype, data=updates.data)
        for i in T.parallel(prod(shape)):
            Y[i] = X[i]
        for o in T.parallel(outer):
            for i in T.parallel(inner):
                for j in T.serial(lines):
                    at: T.let[T.int64] = named[(o * lines + j) * inner + i]
                    # An index outside is an error in torch; here it writes nothing.
                    if T.And(at >= T.int64(0), at < T.int64(size)):
                        entry: T.let[T.int32] = (
                            _offset(o * inner + i, line, shape) + T.Cast("int32", at) * step
                        )
                        update: T.let = U[_offset((o * lines + j) * inner + i, counts, source)]
                        if reduction == "sum":
                            Y[entry] = Y[entry] + update
                        elif reduction == "prod":
                            Y[entry] = Y[entry] * update
                        elif reduction == "amax":
                            Y[entry] = T.max(Y[entry], update)
                        elif reduction == "amin":
                            Y[entry] = T.min(Y[entry], update)
                        else:
                            Y[entry] = update

    return scatter

"""Loops of our own for what Relax has no lowering of: running sums, sorting, scattering.

Each builder returns a TensorIR function on buffers of static shapes, without blocks, so that it
joins a lowered Relax module as it is. Axes before and after the one worked on are `outer` and
`inner` steps.
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
        total = T.alloc_buffer((1,), wide)
        for o in T.serial(outer):
            for i in T.serial(inner):
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
        for i in T.serial(prod(shape)):
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

    A merge sort from runs of one upwards, on a copy of each line and the positions beside it.
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


def _offset(i: Any, counts: Shape, shape: Shape, skipped: int) -> Any:
    """The offset in `shape` of entry `i` of a box `counts` at its corner, one axis left out."""
    total = T.int32(0)
    for axis in range(len(counts)):
        if axis != skipped:
            index = i // prod(counts[axis + 1 :]) % counts[axis]
            total = total + index * prod(shape[axis + 1 :])
    return total


def build_scatter(
    shape: Shape, dtype: str, counts: Shape, source: Shape, axis: int, reduction: str
) -> Any:
    """A copy of x where entries named by an index along `axis` are set, or combined.

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
        for i in T.serial(prod(shape)):
            Y[i] = X[i]
        for i in T.serial(prod(counts)):
            # An index outside is an error in torch; here it writes nothing.
            if T.And(named[i] >= T.int64(0), named[i] < T.int64(size)):
                at: T.let[T.int32] = (
                    _offset(i, counts, shape, axis) + T.Cast("int32", named[i]) * step
                )
                update: T.let = U[_offset(i, counts, source, -1)]
                if reduction == "sum":
                    Y[at] = Y[at] + update
                elif reduction == "prod":
                    Y[at] = Y[at] * update
                elif reduction == "amax":
                    Y[at] = T.max(Y[at], update)
                elif reduction == "amin":
                    Y[at] = T.min(Y[at], update)
                else:
                    Y[at] = update

    return scatter

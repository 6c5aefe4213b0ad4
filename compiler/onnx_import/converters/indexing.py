"""Converters of operators that read and write by position: gather, scatter, one-hot, compress."""

from __future__ import annotations

from math import prod

import torch
from torch import fx

from ..call import Call
from ..registry import converts
from ..size_values import refusal, sized
from ..values import Constant, Operand, Sizes, Value
from .elementwise import add, cast
from .shapes import reshape

aten = torch.ops.aten


def wrapped(call: Call, index: Operand, size: int) -> Operand:
    """Return positions counted from the front, as int64; ONNX counts negative ones from the end."""
    index = cast(call, index, torch.int64)
    if isinstance(index, Constant):
        tensor = index.tensor
        if tensor.numel() and not bool(((tensor >= -size) & (tensor < size)).all()):
            raise call.refuse(f"reads beyond the {size} entries of an axis")
        return call.make(torch.where(tensor < 0, tensor + size, tensor), "positions")
    return call.emit(aten.remainder.Scalar, index, max(size, 1))


@converts("Gather", moves=True)
def convert_gather(call: Call) -> Value:
    value = call.value(0)
    if isinstance(value, Sizes):
        return _gather_sizes(call, value)
    x = call.operand(0)
    axis = call.axis(x, call.integer("axis", 0))
    index = call.operand(1)
    size = call.shape(x)[axis]
    table = isinstance(x, Constant) and x.tensor.dim() == 2 and axis == 0
    if table and x.tensor.is_floating_point() and not isinstance(index, Constant):  # type: ignore[union-attr]
        return call.emit(aten.embedding.default, call.parameter(0), cast(call, index, torch.int64))
    if isinstance(index, Constant) and index.tensor.numel() == 1 and index.tensor.dim() == 0:
        position = int(index.tensor)
        if size is not None and not -size <= position < size:
            raise call.refuse(f"reads entry {position} of {size}")
        return call.emit(aten.select.int, x, axis, position)
    places = wrapped(call, index, call.fixed(x, axis))
    if call.rank(places) == 1:
        return call.emit(aten.index_select.default, x, axis, places)
    flat = call.emit(aten.reshape.default, places, [-1])
    picked = call.emit(aten.index_select.default, x, axis, flat)
    dims = call.dims(x)
    return reshape(call, picked, [*dims[:axis], *call.dims(places), *dims[axis + 1 :]])


def _gather_sizes(call: Call, value: Sizes) -> Value:
    index = call.constant(1)
    if value.scalar or index.dim() > 1:
        raise refusal(call)
    count = len(value.items)
    if any(not -count <= i < count for i in index.reshape(-1).tolist()):
        raise call.refuse(f"reads beyond {count} sizes")
    return sized(call, [value.items[i] for i in index.reshape(-1).tolist()], index.dim() == 0)


@converts("GatherElements", since=11)
def convert_gather_elements(call: Call) -> Value:
    x = call.operand(0)
    axis = call.axis(x, call.integer("axis", 0))
    return call.emit(
        aten.gather.default, x, axis, wrapped(call, call.operand(1), call.fixed(x, axis))
    )


def _places(call: Call, index: Operand, sizes: list[int], skipped: int = 0) -> Operand:
    """Return the position that each row of indices [..., k] names in axes of these sizes, flat."""
    strides = [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    rank = call.rank(index)
    total: Operand | None = None
    for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        part = wrapped(call, call.emit(aten.select.int, index, rank - 1, axis), size)
        part = part if stride == 1 else call.emit(aten.mul.Tensor, part, stride)
        total = part if total is None else add(call, total, part)
    del skipped
    if total is None:
        raise call.refuse("has indices without entries")
    return total


def _joined(call: Call, index: Operand) -> list[Operand] | None:
    """Return the index of each axis where they were joined for an open batch, as torch writes it.

    x[arange(n)[:, None], i] becomes GatherND(x, Concat(Unsqueeze(Expand(...)), ...)).
    """
    open_axes = [size for size in call.shape(index) if size is None]
    if not open_axes or not isinstance(index, fx.Node) or index.target is not aten.cat.default:
        return None
    pieces, axis = index.args
    parts: list[Operand] = []
    for piece in pieces:  # type: ignore[union-attr]
        if not isinstance(piece, fx.Node) or piece.target is not aten.unsqueeze.default:
            return None
        part = piece.args[0]
        if piece.args[1] != axis or axis != call.rank(index) - 1 or not isinstance(part, fx.Node):
            return None
        # Indices broadcast with each other by themselves.
        inner = part.args[0] if part.target is aten.expand.default else part
        same = isinstance(inner, fx.Node) and call.rank(inner) == call.rank(part)
        parts.append(inner if same else part)  # type: ignore[arg-type]
    return parts


@converts("GatherND", since=11)
def convert_gather_nd(call: Call) -> Value:
    x, index = call.operand(0), call.operand(1)
    batch = call.integer("batch_dims", 0)
    parts = _joined(call, index)
    if parts is not None and len(parts) <= call.rank(x) and not batch:
        return call.emit(aten.index.Tensor, x, parts)
    sizes = [call.fixed(x, axis) for axis in range(call.rank(x))]
    outer = [call.fixed(index, axis) for axis in range(call.rank(index))]
    depth = outer[-1] if outer else 0
    if not 0 <= batch <= min(len(sizes), len(outer) - 1) or not 1 <= depth <= len(sizes) - batch:
        raise call.refuse("has indices that don't fit its data")
    if sizes[:batch] != outer[:batch]:
        raise call.refuse(f"has batches of {sizes[:batch]} and {outer[:batch]}")
    inner, tail = sizes[batch : batch + depth], sizes[batch + depth :]
    places = _places(call, cast(call, index, torch.int64), inner)
    if batch:
        # Each batch entry has its own block of positions.
        block = prod(inner)
        first = torch.arange(prod(sizes[:batch])) * block
        shape = [*sizes[:batch], *[1] * (len(outer) - 1 - batch)]
        places = add(call, places, call.make(first.reshape(shape), "blocks"))
    rows = call.emit(aten.reshape.default, x, [prod(sizes[: batch + depth]), *tail])
    flat = call.emit(aten.reshape.default, places, [-1])
    picked = call.emit(aten.index_select.default, rows, 0, flat)
    return call.emit(aten.reshape.default, picked, [*outer[:-1], *tail])


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatter(call: Call, x: Operand, axis: int, index: Operand, updates: Operand) -> Operand:
    kind = call.text("reduction", "none")
    if kind == "none":
        return call.emit(aten.scatter.src, x, axis, index, updates)
    if kind not in _REDUCTIONS:
        raise call.refuse(f"has the unknown reduction {kind!r}")
    return call.emit(aten.scatter_reduce.two, x, axis, index, updates, _REDUCTIONS[kind])


@converts("Scatter", since=9)
@converts("ScatterElements", since=11)
def convert_scatter_elements(call: Call) -> Value:
    x = call.operand(0)
    axis = call.axis(x, call.integer("axis", 0))
    index = wrapped(call, call.operand(1), call.fixed(x, axis))
    return _scatter(call, x, axis, index, call.operand(2))


@converts("ScatterND", since=11)
def convert_scatter_nd(call: Call) -> Value:
    x, index, updates = call.operand(0), call.operand(1), call.operand(2)
    sizes = [call.fixed(x, axis) for axis in range(call.rank(x))]
    depth = call.fixed(index, call.rank(index) - 1)
    if not 1 <= depth <= len(sizes):
        raise call.refuse(f"has indices of {depth} entries for {len(sizes)} axes")
    places = _places(call, cast(call, index, torch.int64), sizes[:depth])
    rows, width = prod(sizes[:depth]), prod(sizes[depth:])
    flat = call.emit(aten.reshape.default, places, [-1, 1])
    spread = call.emit(aten.expand.default, flat, [-1, width])
    table = call.emit(aten.reshape.default, x, [rows, width])
    news = call.emit(aten.reshape.default, updates, [-1, width])
    return call.emit(aten.reshape.default, _scatter(call, table, 0, spread, news), sizes)


@converts("OneHot", since=9)
def convert_one_hot(call: Call) -> Value:
    index = call.operand(0)
    depth = int(call.real(1))
    if not 0 < depth < 1 << 20:
        raise call.refuse(f"has a depth of {depth}")
    rank = call.rank(index) + 1
    axis = call.integer("axis", -1)
    axis = axis + rank if axis < 0 else axis
    if not 0 <= axis < rank:
        raise call.refuse(f"has no axis {axis}")
    values = call.operand(2)
    off, on = (call.emit(aten.select.int, values, 0, entry) for entry in (0, 1))
    whole = cast(call, index, torch.int64)
    # Negative positions count from the end; those beyond are no position at all.
    below = call.emit(aten.lt.Scalar, whole, 0)
    index = call.emit(aten.where.self, below, call.emit(aten.add.Tensor, whole, depth), whole)
    shape = [1] * rank
    shape[axis] = depth
    places = call.make(torch.arange(depth).reshape(shape), "places")
    same = call.emit(aten.eq.Tensor, call.emit(aten.unsqueeze.default, index, axis), places)
    return call.emit(aten.where.self, same, on, off)


@converts("Compress", since=9)
def convert_compress(call: Call) -> Value:
    x = call.operand(0)
    chosen = call.constant(1).reshape(-1).nonzero().reshape(-1)
    if "axis" not in call.attributes:
        x, axis = call.emit(aten.reshape.default, x, [-1]), 0
    else:
        axis = call.axis(x, call.integer("axis"))
    return call.emit(aten.index_select.default, x, axis, call.make(chosen, "places"))


@converts("NonZero", since=9)
def convert_non_zero(call: Call) -> Value:
    if not call.known(0):
        raise call.refuse(
            "gives as many positions as its input has entries above zero: its shape "
            "depends on the data"
        )
    return call.make(call.constant(0).nonzero().t().contiguous())


@converts("ReverseSequence", since=10)
def convert_reverse_sequence(call: Call) -> Value:
    x = call.operand(0)
    lengths = call.whole(1)
    time, batch = call.integer("time_axis", 0), call.integer("batch_axis", 1)
    if {time, batch} != {0, 1}:
        raise call.refuse(f"has the axes {time} and {batch}, not 0 and 1")
    steps, count = call.fixed(x, time), call.fixed(x, batch)
    if len(lengths) != count or not all(0 <= length <= steps for length in lengths):
        raise call.refuse(f"has lengths {lengths} for {count} sequences of {steps} steps")
    table = torch.arange(steps).repeat(count, 1)
    for row, length in enumerate(lengths):
        table[row, :length] = torch.arange(length).flip(0)
    table = table if batch == 0 else table.t()
    tail = [call.fixed(x, axis) for axis in range(2, call.rank(x))]
    index = table.reshape(*table.shape, *[1] * len(tail)).expand(*table.shape, *tail)
    return call.emit(aten.gather.default, x, time, call.make(index.contiguous(), "order"))


@converts("TensorScatter", since=24)
def convert_tensor_scatter(call: Call) -> Value:
    """Write rows into a cache from a position on, one position a batch entry."""
    cache, update = call.operand(0), call.operand(1)
    rank = call.rank(cache)
    axis = call.axis(cache, call.integer("axis", -2))
    length, rows = call.fixed(cache, axis), call.fixed(update, axis)
    shape = [1] * rank
    shape[axis] = rows
    places: Operand = call.make(torch.arange(rows).reshape(shape), "rows")
    if call.has(2):
        first = call.emit(
            aten.reshape.default, cast(call, call.operand(2), torch.int64), [-1, *[1] * (rank - 1)]
        )
        places = add(call, first, places)
    mode = call.text("mode", "linear")
    if mode == "circular":
        places = call.emit(aten.remainder.Scalar, places, length)
    index = call.emit(aten.expand.default, places, call.dims(update))
    return call.emit(aten.scatter.src, cache, axis, index, update)


@converts("Unique", since=11)
def convert_unique(call: Call) -> list[Value]:
    raise call.refuse("gives as many values as differ: its shape depends on the data")


@converts("NonMaxSuppression", since=10)
def convert_non_max_suppression(call: Call) -> Value:
    raise call.refuse(
        "gives as many boxes as it finds: its shape depends on the data",
        cure="cut the model before it, and select boxes outside",
    )


@converts("Einsum", since=12)
def convert_einsum(call: Call) -> Value:
    from .einsum import einsum

    return einsum(call, call.text("equation"), call.operands())

"""Converters of operators that change shapes and types, or read and make them."""

from __future__ import annotations

import torch
from torch import fx

from ..call import Call
from ..registry import converts
from ..size_values import any_sizes, as_sizes, product, refusal, sized
from ..values import Operand, Quantized, Sizes, Value

aten = torch.ops.aten
LAST = 2**63 - 1


@converts("Identity", moves=True)
def convert_identity(call: Call) -> Value:
    return call.value(0)


@converts("Shape")
def convert_shape(call: Call) -> Value:
    value = call.value(0)
    if isinstance(value, Sizes):
        return call.make(torch.tensor([] if value.scalar else [len(value.items)]))
    x = value.node if isinstance(value, Quantized) else value
    rank = call.rank(x)
    start, end, _ = slice(call.integer("start", 0), call.integer("end", rank)).indices(rank)
    return sized(call, [call.emitter.size(x, axis) for axis in range(start, max(start, end))])


@converts("Size")
def convert_size(call: Call) -> Value:
    return sized(call, [product(call, call.dims(call.operand(0)))], scalar=True)


@converts("Reshape", since=5, moves=True)
def convert_reshape(call: Call) -> Value:
    if isinstance(call.value(0), Sizes):
        return _reshape_sizes(call)
    x = call.operand(0)
    wanted = call.sizes(1)
    if not call.flag("allowzero"):
        if any(size == 0 and index >= call.rank(x) for index, size in enumerate(wanted)):
            raise call.refuse(f"keeps an axis that its input of {call.rank(x)} axes lacks")
        wanted = [
            call.emitter.size(x, index) if isinstance(size, int) and size == 0 else size
            for index, size in enumerate(wanted)
        ]
    return reshape(call, x, wanted)


def reshape(call: Call, x: Operand, sizes: list[int | fx.Node]) -> Operand:
    """Return an operand in another shape; one size may be -1."""
    nodes = [index for index, size in enumerate(sizes) if isinstance(size, fx.Node)]
    if len(nodes) == 1 and not any(isinstance(size, int) and size < 0 for size in sizes):
        # One size follows from the others, so that the graph need not compute it.
        sizes = [*sizes[: nodes[0]], -1, *sizes[nodes[0] + 1 :]]
        if 0 in [size for size in sizes if isinstance(size, int)]:
            raise call.refuse("has a tensor without entries")
    return call.emit(aten.reshape.default, x, sizes)


def _reshape_sizes(call: Call) -> Value:
    sizes = as_sizes(call.value(0))
    assert sizes is not None
    shape = call.whole(1)
    if shape in ([-1], [len(sizes.items)]):
        return sized(call, sizes.items)
    if shape == [] and len(sizes.items) == 1:
        return sized(call, sizes.items, scalar=True)
    raise refusal(call)


@converts("Flatten", moves=True)
def convert_flatten(call: Call) -> Value:
    x = call.operand(0)
    axis, rank = call.integer("axis", 1), call.rank(x)
    axis = axis + rank if axis < 0 else axis
    if not 0 <= axis <= rank:
        raise call.refuse(f"has no axis {axis} in a tensor of {rank} axes")
    if axis == 1 and rank == 2:
        return x
    if axis == 1 and rank > 2:
        return call.emit(aten.flatten.using_ints, x, 1, -1)
    dims = call.dims(x)
    return reshape(call, x, [product(call, dims[:axis]), product(call, dims[axis:])])


@converts("Transpose", moves=True)
def convert_transpose(call: Call) -> Value:
    x = call.operand(0)
    rank = call.rank(x)
    order = call.axes(x, call.integers("perm", list(reversed(range(rank)))))
    if len(order) != rank:
        raise call.refuse(f"orders {len(order)} axes of {rank}")
    return permute(call, x, order)


def permute(call: Call, x: Operand, order: list[int]) -> Operand:
    """Return an operand with its axes in another order."""
    return x if order == sorted(order) else call.emit(aten.permute.default, x, order)


@converts("Squeeze", moves=True)
def convert_squeeze(call: Call) -> Value:
    value = call.value(0)
    axes = _axes(call, 13)
    if isinstance(value, Sizes):
        return sized(call, value.items, scalar=len(value.items) == 1)
    x = call.operand(0)
    if axes is None:
        axes = [axis for axis, size in enumerate(call.shape(x)) if size == 1]
    found = call.axes(x, axes)
    if any(call.shape(x)[axis] != 1 for axis in found):
        raise call.refuse(f"removes axes {found} of a tensor of shape {call.shape(x)}")
    return call.emit(aten.squeeze.dims, x, sorted(found)) if found else x


@converts("Unsqueeze", moves=True)
def convert_unsqueeze(call: Call) -> Value:
    value = call.value(0)
    axes = _axes(call, 13)
    if axes is None:
        raise call.refuse("has no axes")
    if isinstance(value, Sizes):
        if value.scalar and axes in ([0], [-1]):
            return sized(call, value.items)
        raise refusal(call)
    x = call.operand(0)
    rank = call.rank(x) + len(axes)
    if any(not -rank <= axis < rank for axis in axes) or len({a % rank for a in axes}) < len(axes):
        raise call.refuse(f"adds impossible axes {axes}")
    for axis in sorted(axis % rank for axis in axes):
        x = call.emit(aten.unsqueeze.default, x, axis)
    return x


def _axes(call: Call, since: int) -> list[int] | None:
    """Return the axes: an input from an opset on, an attribute before; None where not given."""
    if call.opset >= since:
        return call.whole(1) if call.has(1) else None
    return call.integers("axes") if "axes" in call.attributes else None


@converts("Expand", since=8, moves=True)
def convert_expand(call: Call) -> Value:
    value = call.value(0)
    wanted = call.sizes(1)
    if isinstance(value, Sizes):
        if len(value.items) == 1 and len(wanted) == 1 and isinstance(wanted[0], int):
            return sized(call, value.items * wanted[0])
        raise refusal(call)
    return expand(call, call.operand(0), wanted)


def expand(call: Call, x: Operand, wanted: list[int | fx.Node]) -> Operand:
    """Broadcast an operand and a shape with each other."""
    extra = max(0, call.rank(x) - len(wanted))
    wanted = [1] * extra + list(wanted)
    own = [1] * (len(wanted) - call.rank(x)) + call.shape(x)
    sizes = [
        -1 if isinstance(size, int) and size == 1 and index >= len(wanted) - call.rank(x) else size
        for index, size in enumerate(wanted)
    ]
    if all(size == -1 or size == mine for size, mine in zip(sizes, own, strict=True)):
        return x
    return call.emit(aten.expand.default, x, sizes)


@converts("Tile", since=6, moves=True)
def convert_tile(call: Call) -> Value:
    x, counts = call.operand(0), call.sizes(1)
    if any(isinstance(count, int) and count < 0 for count in counts):
        raise call.refuse(f"repeats {counts} times")
    return call.emit(aten.repeat.default, x, counts)


@converts("Concat", since=4, moves=True)
def convert_concat(call: Call) -> Value:
    axis = call.integer("axis")
    if any_sizes(call):
        found = [as_sizes(value) for value in call.inputs]
        if axis not in (0, -1) or any(sizes is None or sizes.scalar for sizes in found):
            raise refusal(call)
        return sized(call, [item for sizes in found for item in sizes.items])  # type: ignore[union-attr]
    operands = call.operands()
    if not operands:
        raise call.refuse("has no inputs")
    return call.emit(aten.cat.default, operands, call.axis(operands[0], axis))


@converts("Split", moves=True)
def convert_split(call: Call) -> list[Value]:
    count = len(call.output_names)
    pieces = _pieces(call, count)
    value = call.value(0)
    if isinstance(value, Sizes):
        return _split_sizes(call, value, pieces)
    x = call.operand(0)
    axis = call.axis(x, call.integer("axis", 0))
    size = call.fixed(x, axis)
    if pieces is None:
        step = -(-size // count)
        # An uneven split is allowed from opset 18 on: the last piece is shorter.
        if size % count and call.opset < 18:
            raise call.refuse(f"splits {size} into {count} unlike pieces")
        pieces = [max(0, min(step, size - index * step)) for index in range(count)]
    if sum(pieces) != size or len(pieces) != count or min(pieces) < 0:
        raise call.refuse(f"splits {size} into {pieces} for {count} outputs")
    ends = [sum(pieces[: index + 1]) for index in range(count)]
    return [
        call.emit(aten.slice.Tensor, x, axis, end - length, end, 1)
        for end, length in zip(ends, pieces, strict=True)
    ]


def _pieces(call: Call, count: int) -> list[int] | None:
    if count < 1 or call.integer("num_outputs", count) != count:
        raise call.refuse(f"has {count} outputs")
    if call.opset >= 13:
        return call.whole(1) if call.has(1) else None
    return call.integers("split") if "split" in call.attributes else None


def _split_sizes(call: Call, value: Sizes, pieces: list[int] | None) -> list[Value]:
    count = len(call.output_names)
    lengths = pieces or [len(value.items) // count] * count
    if sum(lengths) != len(value.items):
        raise refusal(call)
    ends = [sum(lengths[: index + 1]) for index in range(count)]
    return [
        sized(call, value.items[end - length : end])
        for end, length in zip(ends, lengths, strict=True)
    ]


@converts("Slice", moves=True)
def convert_slice_by_attributes(call: Call) -> Value:
    starts, ends = call.integers("starts"), call.integers("ends")
    axes = call.integers("axes", list(range(len(starts))))
    return _slices(call, starts, ends, axes, [1] * len(starts))


@converts("Slice", since=10, moves=True)
def convert_slice(call: Call) -> Value:
    starts, ends = call.whole(1), _ends(call)
    axes = call.whole(3) if call.has(3) else list(range(len(starts)))
    steps = call.whole(4) if call.has(4) else [1] * len(starts)
    return _slices(call, starts, ends, axes, steps)


def _ends(call: Call) -> list[int | fx.Node]:
    return call.sizes(2)


def _slices(
    call: Call,
    starts: list[int],
    ends: list[int] | list[int | fx.Node],
    axes: list[int],
    steps: list[int],
) -> Value:
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise call.refuse("has starts, ends, axes and steps that don't fit")
    value = call.value(0)
    if isinstance(value, Sizes):
        if axes != [0] or value.scalar or not isinstance(ends[0], int):
            raise refusal(call)
        return sized(
            call,
            value.items[
                slice(starts[0], _python_end(ends[0], steps[0], len(value.items)), steps[0])
            ],
        )
    x = call.operand(0)
    for start, end, axis, step in zip(starts, ends, call.axes(x, axes), steps, strict=True):
        x = _slice(call, x, axis, start, end, step)
    return x


def _python_end(end: int, step: int, size: int) -> int | None:
    return None if step < 0 and end < -size else end


def _slice(call: Call, x: Operand, axis: int, start: int, end: int | fx.Node, step: int) -> Operand:
    size = call.shape(x)[axis]
    if size is None or isinstance(end, fx.Node):
        if step < 0:
            call.fixed(x, axis)
            raise refusal(call)
        if start == 0 and step == 1 and (end is call.emitter.size(x, axis) or _beyond(end)):
            return x
        return call.emit(aten.slice.Tensor, x, axis, start, end, step)
    if step > 0:
        first, last, _ = slice(start, end, step).indices(size)
        if (first, step) == (0, 1) and last == size:
            return x
        return call.emit(aten.slice.Tensor, x, axis, first, max(first, last), step)
    first, last, _ = slice(start, _python_end(end, step, size), step).indices(size)
    flipped = call.emit(aten.flip.default, x, [axis])
    begin = size - 1 - first
    count = len(range(first, last, step))
    return call.emit(
        aten.slice.Tensor,
        flipped,
        axis,
        begin,
        begin + (count - 1) * -step + 1 if count else begin,
        -step,
    )


def _beyond(end: int | fx.Node) -> bool:
    return isinstance(end, int) and end >= 2**31 - 1


@converts("DepthToSpace", moves=True)
def convert_depth_to_space(call: Call) -> Value:
    x, block = call.operand(0), call.integer("blocksize")
    channels, height, width = (call.fixed(x, axis) for axis in (1, 2, 3))
    if block < 1 or channels % (block * block):
        raise call.refuse(f"can't split {channels} channels into blocks of {block}")
    if call.text("mode", "DCR") == "CRD":
        return call.emit(aten.pixel_shuffle.default, x, block)
    # Depth first: the channels of pixel shuffle's order, by a permutation of the axes.
    inner = channels // (block * block)
    parts = call.emit(aten.reshape.default, x, [-1, block, block, inner, height, width])
    moved = call.emit(aten.permute.default, parts, [0, 3, 4, 1, 5, 2])
    return call.emit(aten.reshape.default, moved, [-1, inner, height * block, width * block])


@converts("SpaceToDepth", moves=True)
def convert_space_to_depth(call: Call) -> Value:
    x, block = call.operand(0), call.integer("blocksize")
    channels, height, width = (call.fixed(x, axis) for axis in (1, 2, 3))
    if block < 1 or height % block or width % block:
        raise call.refuse(f"can't split {height}x{width} into blocks of {block}")
    if call.text("mode", "DCR") == "CRD":
        return call.emit(aten.pixel_unshuffle.default, x, block)
    high, wide = height // block, width // block
    parts = call.emit(aten.reshape.default, x, [-1, channels, high, block, wide, block])
    moved = call.emit(aten.permute.default, parts, [0, 3, 5, 1, 2, 4])
    return call.emit(aten.reshape.default, moved, [-1, channels * block * block, high, wide])


@converts("ReduceProd")
def convert_product_of_sizes(call: Call) -> Value:
    """On sizes; other tensors are in `reduction`."""
    from .reduction import reduce_product

    value = call.value(0)
    if isinstance(value, Sizes):
        items = [product(call, value.items)]
        return sized(call, items, scalar=not call.flag("keepdims", True))
    return reduce_product(call)

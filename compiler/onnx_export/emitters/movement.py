"""What only moves values, and what reads sizes."""

from __future__ import annotations

from typing import Any

from torch import fx

from ..call import Call, sizes_of
from ..registry import emits

_FIRST = -(2**63)
_LAST = 2**63 - 1


def _reshape(call: Call, value: str, sizes: list[Any]) -> str:
    """Write Reshape; one size that depends on the open batch becomes -1."""
    computed = [index for index, size in enumerate(sizes) if isinstance(size, fx.Node)]
    if len(computed) == 1 and -1 not in sizes:
        sizes = [-1 if isinstance(size, fx.Node) else size for size in sizes]
    # ONNX reads 0 as "keep the size"; torch means an empty tensor.
    if 0 in sizes:
        return call.op("Reshape", value, call.sizes(sizes), allowzero=1)
    return call.op("Reshape", value, call.sizes(sizes))


@emits("reshape")
def reshape(call: Call) -> str:
    """Write Reshape."""
    return _reshape(call, call.value("self"), list(call["shape"]))


@emits("flatten")
def flatten(call: Call) -> str:
    """Write Flatten for [n, ...] -> [n, features], else Reshape."""
    rank = len(call.shape("self"))
    if rank > 1 and call.axis("start_dim") == 1 and call.axis("end_dim") == rank - 1:
        return call.op("Flatten", call.value("self"), axis=1)
    sizes: list[Any] = [-1 if size is None else size for size in sizes_of(call.node)]
    if sizes.count(-1) > 1:
        raise call.refused("of several open sizes has no ONNX form")
    return _reshape(call, call.value("self"), sizes)


@emits("permute")
def permute(call: Call) -> str:
    """Write Transpose."""
    rank = len(call.shape("self"))
    return call.op("Transpose", call.value("self"), perm=[axis % rank for axis in call["dims"]])


@emits("slice")
def slice_(call: Call) -> str:
    """Write Slice on one axis."""
    start, end = call["start"], call["end"]
    ends = (0 if start is None else start, _LAST if end is None else end)
    steps = (call.integers([call.axis("dim")]), call.integers([call["step"]]))
    return call.op("Slice", call.value("self"), *(call.sizes([at]) for at in ends), *steps)


@emits("select")
def select(call: Call) -> str:
    """Write Gather of one position."""
    return call.op(
        "Gather", call.value("self"), call.integers(call["index"]), axis=call.axis("dim")
    )


@emits("index_select")
def index_select(call: Call) -> str:
    """Write Gather along one axis."""
    return call.op("Gather", call.value("self"), call.value("index"), axis=call.axis("dim"))


@emits("embedding")
def embedding(call: Call) -> str:
    """Write Gather of rows."""
    return call.op("Gather", call.value("weight"), call.value("indices"), axis=0)


@emits("unsqueeze")
def unsqueeze(call: Call) -> str:
    """Write Unsqueeze of one axis, which counts in the result."""
    axis = int(call["dim"]) % (len(call.shape("self")) + 1)
    return call.op("Unsqueeze", call.value("self"), call.integers([axis]))


@emits("squeeze")
def squeeze(call: Call) -> str:
    """Write Squeeze of those of the axes that have one entry, as torch does."""
    sizes = call.shape("self")
    named = [call["dim"]] if isinstance(call["dim"], int) else call["dim"]
    axes = [axis % len(sizes) for axis in named if sizes[axis] == 1]
    if not axes:
        return call.op("Identity", call.value("self"))
    return call.op("Squeeze", call.value("self"), call.integers(axes))


@emits("expand")
def expand(call: Call) -> str:
    """Write Expand; what stays is 1, which broadcasts."""
    return call.op(
        "Expand", call.value("self"), call.sizes([1 if s == -1 else s for s in call["size"]])
    )


@emits("repeat")
def repeat(call: Call) -> str:
    """Write Tile; new axes come first."""
    times = list(call["repeats"])
    x, extra = call.value("self"), len(times) - len(call.shape("self"))
    if extra:
        x = call.op("Unsqueeze", x, call.integers(list(range(extra))))
    return call.op("Tile", x, call.sizes(times))


@emits("cat")
def concatenate(call: Call) -> str:
    """Write Concat."""
    tensors: list[fx.Node] = list(call["tensors"])
    rank = len(sizes_of(call.node))
    parts = [call.writer.value(tensor) for tensor in tensors]
    return call.op("Concat", *parts, axis=int(call["dim"]) % rank)


@emits("flip")
def flip(call: Call) -> str:
    """Write Slice with steps of -1."""
    rank = len(call.shape("self"))
    axes = [axis % rank for axis in call["dims"]]
    places = [[-1] * len(axes), [_FIRST] * len(axes), axes, [-1] * len(axes)]
    return call.op("Slice", call.value("self"), *(call.integers(place) for place in places))


@emits("roll")
def roll(call: Call) -> str:
    """Write the last entries, then the others, axis by axis."""
    value, sizes = call.value("self"), call.shape("self")
    if not call["dims"]:
        if len(sizes) != 1:
            raise call.refused("of the flattened tensor has no ONNX form here")
        dims = [0]
    else:
        dims = [axis % len(sizes) for axis in call["dims"]]
    for axis, shift in zip(dims, call["shifts"], strict=True):
        size = sizes[axis]
        if size is None:
            raise call.refused("along the open batch has no ONNX form here")
        if shift % size:
            value = _rolled(call, value, axis, size - shift % size)
    return value if value != call.value("self") else call.op("Identity", value)


def _rolled(call: Call, value: str, axis: int, first: int) -> str:
    """Write entries from `first` on, then those before it."""
    along, step = call.integers([axis]), call.integers([1])
    parts = [
        call.op("Slice", value, call.integers([start]), call.integers([end]), along, step)
        for start, end in ((first, _LAST), (0, first))
    ]
    return call.op("Concat", *parts, axis=axis)


@emits("pixel_shuffle")
def pixel_shuffle(call: Call) -> str:
    """Write DepthToSpace in torch's order of channels."""
    factor = int(call["upscale_factor"])
    return call.op("DepthToSpace", call.value("self"), blocksize=factor, mode="CRD")


@emits("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> str:
    """Write two reshapes around a transposition: SpaceToDepth orders the channels otherwise."""
    sizes, factor = call.shape("self"), int(call["downscale_factor"])
    if len(sizes) != 4 or None in sizes[1:]:
        raise call.refused(f"of the sizes {sizes} has no ONNX form here")
    channels, height, width = (int(size or 0) for size in sizes[1:])
    apart = [0, channels, height // factor, factor, width // factor, factor]
    split = call.op("Reshape", call.value("self"), call.integers(apart))
    moved = call.op("Transpose", split, perm=[0, 1, 3, 5, 2, 4])
    together = [0, channels * factor**2, height // factor, width // factor]
    return call.op("Reshape", moved, call.integers(together))


@emits("sym_size")
def size(call: Call) -> str:
    """Write Shape of one axis: int64 [1], as `Writer.size` wants it."""
    axis = call.axis("dim")
    return call.writer.add("Shape", [call.value("self")], call.node, start=axis, end=axis + 1)[0]

"""Converters of ATen operators to Relax, beside those of TVM's importer.

A converter takes an fx node and the importer (whose `env` has the Relax values of other nodes), and
returns the Relax value of the node. TVM finds them by the operator's name.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch.fx
from tvm import relax as _relax
from tvm import te, tirx

from planish.ir.ops import arguments

from ..target import Target
from .loops import build_bit_cast, build_rank, build_running, build_scatter, build_sort

# TVM's annotations ask for more exact types than it takes.
relax: Any = _relax

# Marks a function that is plain loops already.
WITHOUT_BLOCKS = "planish.without_blocks"
Converter = Callable[[torch.fx.Node, Any], Any]


def _known(node: torch.fx.Node, importer: Any) -> dict[str, Any]:
    """Return a node's arguments by name, tensors as Relax values."""

    def value(argument: Any) -> Any:
        return importer.env[argument] if isinstance(argument, torch.fx.Node) else argument

    return {name: value(argument) for name, argument in arguments(node).items()}


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in value.ty.shape)


def _axis(value: Any, dim: int) -> int:
    return dim + len(_shape(value)) if dim < 0 else dim


def _call(importer: Any, function: Any, name: str, inputs: list[Any], outputs: list[Any]) -> Any:
    builder = importer.block_builder
    known = builder.add_func(function.with_attr(WITHOUT_BLOCKS, 1), name)
    call = relax.call_tir(known, inputs, outputs if len(outputs) > 1 else outputs[0])
    return builder.emit(call)


def _type(shape: tuple[int, ...], dtype: str) -> Any:
    return relax.TensorType(shape, dtype)


def _running(product: bool) -> Converter:
    def convert(node: torch.fx.Node, importer: Any) -> Any:
        known = _known(node, importer)
        x = known["self"]
        wanted = str(node.meta["val"].dtype).removeprefix("torch.")
        if str(x.ty.dtype) != wanted:
            x = importer.block_builder.emit(relax.op.astype(x, wanted))
        shape = _shape(x)
        if not shape:
            return x
        function = build_running(shape, wanted, _axis(x, known["dim"]), product)
        return _call(importer, function, "running", [x], [_type(shape, wanted)])

    return convert


def _sorted(build: Any, importer: Any, x: Any, dim: int, kept: int | None, down: bool) -> Any:
    shape, dtype, axis = _shape(x), str(x.ty.dtype), _axis(x, dim)
    if dtype == "bool":
        raise NotImplementedError("sorting truth values")
    kept = shape[axis] if kept is None else kept
    result = (*shape[:axis], kept, *shape[axis + 1 :])
    function = build(shape, dtype, axis, kept, down)
    return _call(importer, function, "sort", [x], [_type(result, dtype), _type(result, "int64")])


def _sort(build: Any) -> Converter:
    def convert(node: torch.fx.Node, importer: Any) -> Any:
        known = _known(node, importer)
        return _sorted(
            build, importer, known["self"], known["dim"], None, bool(known["descending"])
        )

    return convert


def _argsort(build: Any) -> Converter:
    def convert(node: torch.fx.Node, importer: Any) -> Any:
        both = _sort(build)(node, importer)
        return importer.block_builder.emit(relax.TupleGetItem(both, 1))

    return convert


def _topk(build: Any) -> Converter:
    def convert(node: torch.fx.Node, importer: Any) -> Any:
        known = _known(node, importer)
        count, down = int(known["k"]), bool(known["largest"])
        return _sorted(build, importer, known["self"], known["dim"], count, down)

    return convert


def _scatter(reduction: str) -> Converter:
    def convert(node: torch.fx.Node, importer: Any) -> Any:
        known = _known(node, importer)
        x, index = known["self"], known["index"]
        kind = known["reduce"] if reduction == "named" else reduction
        kind = {"mean": "", "add": "sum", "multiply": "prod"}.get(kind, kind)
        if not kind or known.get("include_self") is False:
            raise NotImplementedError("scatter_reduce by means, or without the values before it")
        updates = known["src"] if "src" in known else known["value"]
        if not hasattr(updates, "ty"):
            filler = relax.const(updates, str(x.ty.dtype))
            updates = importer.block_builder.emit(
                relax.op.full(_shape(index), filler, str(x.ty.dtype))
            )
        shape, dtype = _shape(x), str(x.ty.dtype)
        axis = _axis(x, known["dim"])
        function = build_scatter(shape, dtype, _shape(index), _shape(updates), axis, kind)
        out = [_type(shape, dtype)]
        return _call(importer, function, "scatter", [x, index, updates], out)

    return convert


def _extreme(operator: Any) -> Converter:
    def convert(node: torch.fx.Node, importer: Any) -> Any:
        known = _known(node, importer)
        axes = known["dim"]
        axes = [axes] if isinstance(axes, int) else list(axes or ())
        return importer.block_builder.emit(
            operator(known["self"], axes or None, bool(known["keepdim"]))
        )

    return convert


def _first_place(x: Any, best: Any, axis: int) -> Any:
    """Where each line first has its extreme, of TVM's `te`; a NaN is the extreme of its line.

    TVM's own argmax counts from -1, which stays where nothing is larger than the least number.
    """
    sizes = [int(size) for size in x.shape]
    number = te.reduce_axis((0, sizes[axis]), "number")
    one_each = [1 if i == axis else size for i, size in enumerate(sizes)]

    def place(*at: Any) -> Any:
        value, extreme = x(*at[:axis], number, *at[axis + 1 :]), best(*at)
        found = tirx.EQ(value, extreme)
        if str(x.dtype).startswith("float"):
            found = tirx.Or(found, tirx.isnan(value))
        there = tirx.Cast("int64", number.var)
        return te.min(tirx.Select(found, there, tirx.IntImm("int64", sizes[axis])), axis=number)

    return te.compute(one_each, place, "place")


def _with_place(operator: Any, importer: Any, x: Any, axis: int) -> tuple[Any, Any]:
    """Return the extreme of each line and its place, with the axis kept."""
    builder = importer.block_builder
    best = builder.emit(operator(x, [axis], True))
    return best, builder.emit_te(_first_place, x, best, axis)


def _place(operator: Any) -> Converter:
    def convert(node: torch.fx.Node, importer: Any) -> Any:
        known = _known(node, importer)
        x, dim = known["self"], known["dim"]
        if dim is None or not _shape(x):
            dim, x = 0, importer.block_builder.emit(relax.op.reshape(x, [prod(_shape(x))]))
        _, place = _with_place(operator, importer, x, _axis(x, dim))
        wanted = [int(size) for size in node.meta["val"].shape]
        return importer.block_builder.emit(relax.op.reshape(place, wanted))

    return convert


def _extreme_and_place(operator: Any) -> Converter:
    def convert(node: torch.fx.Node, importer: Any) -> Any:
        known = _known(node, importer)
        both = _with_place(operator, importer, known["self"], _axis(known["self"], known["dim"]))
        wanted = [int(size) for size in node.meta["val"][0].shape]
        shaped = [importer.block_builder.emit(relax.op.reshape(value, wanted)) for value in both]
        return relax.Tuple(shaped)

    return convert


def _take(table: str, axis: str | None, index: str) -> Converter:
    """Rows picked by an index; one that lies outside reads the nearest row."""

    def convert(node: torch.fx.Node, importer: Any) -> Any:
        known = _known(node, importer)
        along = _axis(known[table], known[axis]) if axis else 0
        taken = relax.op.take(known[table], known[index], along, mode="clip")
        return importer.block_builder.emit(taken)

    return convert


def _shift(operator: Any) -> Converter:
    def convert(node: torch.fx.Node, importer: Any) -> Any:
        known = _known(node, importer)
        return importer.block_builder.emit(operator(known["self"], known["other"]))

    return convert


def _bit_cast(node: torch.fx.Node, importer: Any) -> Any:
    x = importer.env[node.args[0]]
    shape, wanted = _shape(x), str(node.meta["val"].dtype).removeprefix("torch.")
    if tuple(node.meta["val"].shape) != shape or "bool" in (wanted, str(x.ty.dtype)):
        raise NotImplementedError("values seen as ones of another size")
    function = build_bit_cast(shape, str(x.ty.dtype), wanted)
    return _call(importer, function, "bit_cast", [x], [_type(shape, wanted)])


def _select(node: torch.fx.Node, importer: Any) -> Any:
    known = _known(node, importer)
    x, index = known["self"], int(known["index"])
    axis = _axis(x, known["dim"])
    number = relax.const(index + _shape(x)[axis] if index < 0 else index, "int64")
    return importer.block_builder.emit(relax.op.take(x, number, axis, mode="clip"))


def converters(target: Target) -> dict[str, Converter]:
    """Return the converters for a target, by the operator's name."""
    return {**_CONVERTERS, **(_SORTING if target.capability is None else _SORTING_ON_GPU)}


def _sorting(build: Any) -> dict[str, Converter]:
    return {
        "sort.default": _sort(build),
        "sort.stable": _sort(build),
        "argsort.default": _argsort(build),
        "argsort.stable": _argsort(build),
        "topk.default": _topk(build),
    }


_SORTING, _SORTING_ON_GPU = _sorting(build_sort), _sorting(build_rank)
_CONVERTERS: dict[str, Converter] = {
    "cumsum.default": _running(product=False),
    "cumprod.default": _running(product=True),
    "bitwise_left_shift.Tensor": _shift(relax.op.left_shift),
    "bitwise_right_shift.Tensor": _shift(relax.op.right_shift),
    "select.int": _select,
    "view.dtype": _bit_cast,
    "scatter.src": _scatter("set"),
    "scatter.value": _scatter("set"),
    "scatter.reduce": _scatter("named"),
    "scatter_add.default": _scatter("sum"),
    "scatter_reduce.two": _scatter("named"),
    "amax.default": _extreme(relax.op.max),
    "amin.default": _extreme(relax.op.min),
    "argmax.default": _place(relax.op.max),
    "argmin.default": _place(relax.op.min),
    "max.dim": _extreme_and_place(relax.op.max),
    "min.dim": _extreme_and_place(relax.op.min),
    "prod.dim_int": _extreme(relax.op.prod),
    "index_select.default": _take("self", "dim", "index"),
    "embedding.default": _take("weight", None, "indices"),
}

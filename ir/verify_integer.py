"""The verifier's rules of the integer level, I1 to I4; `verifier` lists them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from .graph import Graph
from .integer import dtype_range
from .integer.normalization import LAYER_NORM_LIMIT
from .integer.resampling import RESIZE_BITS
from .ops import Quantization, arguments, has_row, is_overload, row
from .problem import Problem

_BYTES = (torch.uint8, torch.int8)
_STORED = {
    "weight": torch.int8,
    "bias": torch.int32,
    "multiplier": torch.float32,
    "gain": torch.float32,
    "offset": torch.int32,
}
_ADD_LIMIT = 32767
# 2**-shift times a sum below 2**24 is a float32 that is neither infinite nor subnormal.
_SHIFT_LIMIT = 100
_ENTRY_LIMIT, _SUM_LIMIT = 2**23, 2**31 - 1
_OFFSET_LIMIT, _EPSILON_LIMIT = 2**22, 2**62
_MEAN_LIMIT = 2**23


def integer_problems(graph: Graph) -> Iterator[Problem]:
    """Return every broken invariant of the integer level."""
    for node in graph.calls:
        if not is_overload(node.target):
            continue
        if str(node.target).startswith("planish."):
            yield from _operator(graph, node)
        else:
            yield from _mixing(graph, node)


def _mixing(graph: Graph, node: fx.Node) -> Iterator[Problem]:
    """Only operators that move values may work on integers outside the planish namespace."""
    value = node.meta["val"]
    moves = has_row(node.target) and row(node).quantization is Quantization.SAME_SCALE
    if not isinstance(value, torch.Tensor) or value.dtype not in _BYTES:
        return
    if has_row(node.target) and row(node).name == "cast":
        # The model's own integers begin here.
        moves = all(graph.dtype(source) not in _BYTES for source in node.all_input_nodes)
    if not moves:
        yield Problem("I1", f"{node.name} computes on {value.dtype} outside the contract", node)
    elif row(node).name == "pad":
        yield Problem("I1", f"{node.name} pads {value.dtype} with a real number", node)


def _operator(graph: Graph, node: fx.Node) -> Iterator[Problem]:
    values = arguments(node)
    name = row(node).name
    for role in row(node).inputs:
        dtype = graph.dtype(values[role])
        wanted = (torch.float32,) if name == "quantize" else _BYTES
        if dtype not in wanted:
            yield Problem("I1", f"{node.name} takes {dtype} as {role!r}", node)
    for role, dtype in _STORED.items():
        operand = values.get(role)
        if isinstance(operand, fx.Node) and graph.dtype(operand) != dtype:
            yield Problem("I2", f"{node.name}: {role} is {graph.dtype(operand)}, not {dtype}", node)
    multiplier = values.get("multiplier")
    if isinstance(multiplier, float) and not 0 <= multiplier < math.inf:
        yield Problem("I2", f"{node.name} multiplies by {multiplier}", node)
    if "lo" in values:
        low, high = dtype_range(values.get("dtype") or node.meta["val"].dtype)
        if not low <= values["lo"] <= values["hi"] <= high:
            what = (
                f"{node.name} clamps to [{values['lo']}, {values['hi']}], outside [{low}, {high}]"
            )
            yield Problem("I3", what, node)
    for what in _CONSTANTS.get(name, _nothing)(graph, node, values):
        yield Problem("I4", f"{node.name} {what}", node)


def _nothing(graph: Graph, node: fx.Node, values: dict[str, Any]) -> Iterator[str]:
    del graph, node, values
    yield from ()


def _tensor(graph: Graph, operand: Any) -> torch.Tensor | None:
    """Return the stored tensor that an argument refers to, or None if it is computed."""
    if isinstance(operand, fx.Node) and operand.op == "get_attr":
        return graph.attribute(str(operand.target))
    return None


def _add(graph: Graph, node: fx.Node, values: dict[str, Any]) -> Iterator[str]:
    del graph, node
    for role in ("a_multiplier", "b_multiplier"):
        if abs(values[role]) > _ADD_LIMIT:
            yield f"has {role} {values[role]}, beyond {_ADD_LIMIT}"
    if abs(values["shift"]) > _SHIFT_LIMIT:
        yield f"has the shift {values['shift']}, beyond {_SHIFT_LIMIT}"


def _table(graph: Graph, node: fx.Node, values: dict[str, Any]) -> Iterator[str]:
    del node
    shape = graph.shape(values["table"])
    if shape != (256,):
        yield f"has a table of shape {shape}, not (256,)"


def _softmax(graph: Graph, node: fx.Node, values: dict[str, Any]) -> Iterator[str]:
    yield from _table(graph, node, values)
    table = _tensor(graph, values["table"])
    length = graph.shape(values["x"])[values["dim"]]
    if table is None or table.dtype != torch.int32:
        yield "has no stored table of int32"
    elif int(table.min()) < 0 or int(table.max()) > _ENTRY_LIMIT:
        yield f"has exponentials outside [0, {_ENTRY_LIMIT}]"
    elif length is None or int(table.max()) * length > _SUM_LIMIT:
        yield f"sums {length} exponentials, which may exceed {_SUM_LIMIT}"


def _layer_norm(graph: Graph, node: fx.Node, values: dict[str, Any]) -> Iterator[str]:
    del node
    count = math.prod(size or 0 for size in graph.shape(values["gain"]))
    if count > LAYER_NORM_LIMIT:
        yield f"normalizes {count} values, more than {LAYER_NORM_LIMIT}"
    offset = _tensor(graph, values["offset"])
    if offset is not None and bool((offset.abs() > _OFFSET_LIMIT).any()):
        yield f"has an offset beyond {_OFFSET_LIMIT}"
    if not 0 <= values["epsilon"] < _EPSILON_LIMIT:
        yield f"has epsilon {values['epsilon']}, not in [0, {_EPSILON_LIMIT})"


def _mean(graph: Graph, node: fx.Node, values: dict[str, Any]) -> Iterator[str]:
    del node
    sizes = [graph.shape(values["x"])[axis] for axis in values["dim"]]
    if None in sizes or math.prod(size or 0 for size in sizes) > _MEAN_LIMIT:
        yield f"sums axes of sizes {sizes}, which may hold more than {_MEAN_LIMIT} values"


def _resize(graph: Graph, node: fx.Node, values: dict[str, Any]) -> Iterator[str]:
    del node
    axes = (("rows", "row_weights", 2), ("columns", "column_weights", 3))
    for role, weight_role, axis in axes:
        positions, weights = (_tensor(graph, values[name]) for name in (role, weight_role))
        size = graph.shape(values["x"])[axis]
        if positions is None or weights is None or size is None:
            yield f"has no stored {role}, or an open size"
            continue
        if bool((positions < 0).any()) or bool((positions >= size).any()):
            yield f"reads {role} outside [0, {size})"
        if bool((weights < 0).any()) or bool((weights.sum(1) != 2**RESIZE_BITS).any()):
            yield f"has {weight_role} that don't sum to {2**RESIZE_BITS}"


def _pad(graph: Graph, node: fx.Node, values: dict[str, Any]) -> Iterator[str]:
    del graph
    low, high = dtype_range(node.meta["val"].dtype)
    if not low <= values["value"] <= high:
        yield f"pads with {values['value']}, outside [{low}, {high}]"


_CONSTANTS: dict[str, Callable[[Graph, fx.Node, dict[str, Any]], Iterator[str]]] = {
    "add_i8": _add,
    "table_i8": _table,
    "softmax_i8": _softmax,
    "layer_norm_i8": _layer_norm,
    "mean_i8": _mean,
    "resize_i8": _resize,
    "pad_i8": _pad,
}

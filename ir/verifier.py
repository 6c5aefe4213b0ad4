"""The verifier: what must hold of a graph, by level. Runs after every pass.

Structure, at every level:
  S1  the torch.fx graph is well formed: every use comes after its definition
  S2  placeholders match the input specifications, in number, shape and dtype
  S3  every get_attr names a stored tensor, and every stored tensor is used
  S4  shapes and dtypes inferred anew equal those recorded in each node's meta["val"]
  S5  floating-point tensors hold neither NaN nor infinity
From the canonical level on:
  C1  every operator has a row in the operator table that allows the level
  C2  no operator writes to its inputs (batch norm's running statistics excepted)
  C3  no dead nodes
  C4  every operator node carries an origin
On the quantized level:
  Q1  fake-quantize: finite scale above zero, zero point within [lo, hi], one entry a channel
On the integer level:
  I1  integer operators take uint8 or int8 and give them, or float32 (dequantize and the
      products named _dq); others may move integers, never compute on them, nor pad them
  I2  weights are int8, biases and offsets int32, multipliers and gains float32; multipliers
      are finite and not negative
  I3  lo <= hi, both within the range of the result's dtype
  I4  the constants are such that no exact step overflows: 256 entries in a table, those of
      softmax at most 2**23 and their sum below 2**31; at most 32767 in an addition's multipliers;
      at most 2**15 values in a layer norm, its offset at most 2**22, its epsilon below 2**62;
      2**23 values in a mean; weights of a resize that sum to 2**10; a padding's value a byte

All errors are collected, then raised once as `VerifyError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from .errors import ModelError, VerifyError
from .graph import Graph
from .infer import infer_values
from .level import Level
from .ops import arguments, has_row, is_overload, row
from .origin import Origin, get_origin
from .printer import node_text
from .problem import Problem
from .verify_integer import integer_problems

_CONTEXT = 5  # lines of IR shown on each side of the first offending node


def problems(graph: Graph) -> list[Problem]:
    """Return every broken invariant of `graph`; an empty list means that it is sound."""
    found = list(_structure(graph))
    if any(problem.code in ("S1", "S2") for problem in found):
        return found
    if graph.level >= Level.CANONICAL:
        found += _canonical(graph)
    if graph.level == Level.QUANTIZED:
        found += _quantized(graph)
    if graph.level == Level.INTEGER:
        found += integer_problems(graph)
    return found


def verify(graph: Graph, *, after: str | None = None) -> None:
    """Raise VerifyError if an invariant is broken; names the pass `after` which it was found."""
    found = problems(graph)
    if not found:
        return
    head = f"{after}: " if after else ""
    lines = [f"{head}the {graph.level.label} graph breaks {len(found)} invariant(s)"]
    for problem in found:
        origin = f" [{get_origin(problem.node)}]" if problem.node is not None else ""
        lines.append(f"  {problem.code} {problem.what}{origin}")
    first = next((problem.node for problem in found if problem.node is not None), None)
    if first is not None:
        lines += _excerpt(graph, first)
    raise VerifyError("\n".join(lines))


def _excerpt(graph: Graph, marked: fx.Node) -> list[str]:
    nodes = [node for node in graph.nodes if node.op == "call_function" or node is marked]
    at = nodes.index(marked) if marked in nodes else 0
    shown = nodes[max(0, at - _CONTEXT) : at + _CONTEXT + 1]
    return [f"  {'-->' if node is marked else '   '} {node_text(node)}" for node in shown]


def _structure(graph: Graph) -> Iterator[Problem]:
    try:
        graph.fx.lint()
    except RuntimeError as error:
        yield Problem("S1", f"the graph is malformed: {error}")
        return
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    if len(placeholders) != len(graph.inputs):
        yield Problem("S2", f"{len(placeholders)} placeholders, {len(graph.inputs)} inputs")
        return
    yield from _attributes(graph)
    try:
        values = infer_values(graph.module, graph.inputs)
    except ModelError as error:
        yield Problem("S4", str(error))
        return
    for node, value in values.items():
        recorded = node.meta.get("val")
        if _signature(recorded) != _signature(value):
            what = f"{node.name} is recorded as {_signature(recorded)}, is {_signature(value)}"
            yield Problem("S4", what, node)


def _signature(value: Any) -> Any:
    """Reduce a value to what is compared: open sizes stand for each other."""
    if isinstance(value, torch.Tensor):
        sizes = tuple(size if isinstance(size, int) else None for size in value.shape)
        return value.dtype, sizes
    if isinstance(value, list | tuple):
        return tuple(_signature(item) for item in value)
    return type(value).__name__


def _attributes(graph: Graph) -> Iterator[Problem]:
    stored = graph.attributes
    used: set[str] = set()
    for node in graph.nodes:
        if node.op != "get_attr":
            continue
        used.add(str(node.target))
        if str(node.target) not in stored:
            yield Problem("S3", f"no tensor is stored under {node.target!r}", node)
    for name in sorted(set(stored) - used):
        yield Problem("S3", f"tensor {name!r} is stored but never used")
    for name, tensor in stored.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            yield Problem("S5", f"tensor {name!r} holds NaN or infinity")


def _canonical(graph: Graph) -> Iterator[Problem]:
    for node in graph.calls:
        if is_overload(node.target) and node.target._schema.is_mutable:  # type: ignore[union-attr]
            yield Problem("C2", f"{node.target} writes to its input", node)
        if not has_row(node.target):
            yield Problem("C1", f"operator {node.target} has no row in the operator table", node)
            continue
        found = row(node)
        if graph.level not in found.levels:
            what = f"{found.name} is not allowed on the {graph.level.label} level"
            yield Problem("C1", what, node)
        if not node.users:
            yield Problem("C3", f"the value of {node.name} is never used", node)
        if not isinstance(node.meta.get("origin"), Origin):
            yield Problem("C4", f"{node.name} has no origin", node)


def _quantized(graph: Graph) -> Iterator[Problem]:
    for node in graph.calls:
        if node.target is not torch.ops.planish.fake_quantize.default:
            continue
        values = arguments(node)
        scale = graph.attribute(values["scale"].target)
        zero_point = graph.attribute(values["zero_point"].target)
        if not bool((scale > 0).all()):
            yield Problem("Q1", f"{node.name} has a scale that is not above zero", node)
        inside = (zero_point >= values["lo"]) & (zero_point <= values["hi"])
        if not bool(inside.all()):
            yield Problem("Q1", f"{node.name} has a zero point outside its range", node)
        axis = values["axis"]
        channels = () if axis is None else (graph.shape(values["x"])[axis],)
        if tuple(scale.shape) != channels or tuple(zero_point.shape) != channels:
            yield Problem("Q1", f"{node.name} needs scale and zero point of shape {channels}", node)

"""PyTorch's quantization (pt2e: `quantized_decomposed`) becomes fake-quantize.

A quantize with its dequantize is one fake_quantize; a dequantize of stored integers is a float
parameter with a fake_quantize behind it. Operators are told by name: torch registers them with
the modules that make such graphs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from planish.ir.errors import OperatorError
from planish.ir.graph import Graph
from planish.ir.ops import arguments, stored
from planish.ir.origin import get_origin

from .rewriting import Rewriter, Rule, looks_at, store_tensor

_fake_quantize = torch.ops.planish.fake_quantize.default
_NAMESPACE = "quantized_decomposed"
_ROLES = (("scale", "scales"), ("zero_point", "zero_points"))


def spell_dequantize(graph: Graph, node: fx.Node) -> bool:
    """dequantize(quantize(x)) -> fake_quantize(x); dequantize(stored) -> fake_quantize(weight)."""
    if not _is(node, "dequantize_per_tensor", "dequantize_per_channel"):
        return False
    values = arguments(node)
    source: fx.Node = values["input"]
    if values.get("out_dtype") not in (None, torch.float32):
        raise _refused(node, f"to {values['out_dtype']} is not supported; float32 is")
    scale, zero_point = _parameters(graph, node)
    axis = values.get("axis")
    if stored(source) is not None:
        _weight(graph, node, scale, zero_point)
        return True
    if not _is(source, "quantize_per_tensor", "quantize_per_channel"):
        raise _refused(node, "of integers that no quantize made is not supported")
    before = _parameters(graph, source)
    same = torch.equal(before[0], scale) and torch.equal(before[1], zero_point)
    if not same or arguments(source).get("axis") != axis:
        raise _refused(node, "with other parameters than its quantize is not supported")
    rewriter = Rewriter(graph, node)
    name = f"quantization.{get_origin(arguments(source)['input']).name}"
    operands = (
        rewriter.store(f"{name}.scale", scale),
        rewriter.store(f"{name}.zero_point", zero_point),
    )
    value, lo, hi = arguments(source)["input"], values["quant_min"], values["quant_max"]
    new = rewriter.finish(_fake_quantize, value, *operands, axis, lo, hi)
    new.meta["origin"] = get_origin(value)
    return True


@looks_at(_fake_quantize)
def merge_equal_quantizers(graph: Graph, node: fx.Node) -> bool:
    """Several equal fake_quantize of one value -> one; some tools write one for each reader."""
    values = arguments(node)
    if stored(values["x"]) is not None:
        return False
    for other in values["x"].users:
        if other.target is not _fake_quantize or not other < node:
            continue  # the first of them stays
        if _equal(graph, arguments(other), values):
            node.replace_all_uses_with(other)
            graph.fx.erase_node(node)
            return True
    return False


def _equal(graph: Graph, one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two fake_quantize have the same axis, range, scale and zero point."""
    if any(one[name] != other[name] for name in ("x", "axis", "lo", "hi")):
        return False
    pairs = [(one[role], other[role]) for role in ("scale", "zero_point")]
    return all(
        torch.equal(*(graph.attribute(str(node.target)).detach() for node in pair))
        for pair in pairs
    )


def _weight(graph: Graph, node: fx.Node, scale: torch.Tensor, zero_point: torch.Tensor) -> None:
    values = arguments(node)
    source: fx.Node = values["input"]
    integers, axis = graph.attribute(str(source.target)), values.get("axis")
    shape = [1] * integers.dim()
    if axis is not None:
        shape[axis] = -1
    real = (integers.to(torch.float32) - zero_point.reshape(shape)) * scale.reshape(shape)
    rewriter = Rewriter(graph, node)
    name = f"{_reader(node)}.weight"
    weight = store_tensor(graph, name, real.reshape(integers.shape), node, trainable=True)
    operands = (
        rewriter.store(f"{name}_scale", scale),
        rewriter.store(f"{name}_zero_point", zero_point),
    )
    lo, hi = values["quant_min"], values["quant_max"]
    origin = get_origin(next(iter(node.users), node))
    rewriter.finish(_fake_quantize, weight, *operands, axis, lo, hi).meta["origin"] = origin


def _reader(node: fx.Node) -> str:
    """Return the name of the layer that reads a weight."""
    for user in node.users:
        return get_origin(user).name.replace(" ", "_")
    return get_origin(node).name


def _parameters(graph: Graph, node: fx.Node) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale (float32) and zero point (int32), [] or [channels]."""
    values = arguments(node)
    found = []
    for names, dtype in zip(_ROLES, (torch.float32, torch.int32), strict=True):
        value: Any = next((values[name] for name in names if name in values), None)
        if isinstance(value, fx.Node):
            if stored(value) is None:
                raise _refused(node, "with computed parameters is not supported")
            value = graph.attribute(str(value.target)).detach()
        found.append(torch.as_tensor(0 if value is None else value).to(dtype))
    scale, zero_point = found
    if "axis" not in values:
        scale = scale.reshape(())
    return scale, zero_point.reshape(-1).expand(max(scale.numel(), 1)).reshape(scale.shape).clone()


def _is(node: Any, *names: str) -> bool:
    if not isinstance(node, fx.Node) or not isinstance(node.target, torch._ops.OpOverload):
        return False
    namespace, _, name = node.target._schema.name.partition("::")
    return namespace == _NAMESPACE and name in names


def _refused(node: fx.Node, reason: str) -> OperatorError:
    return OperatorError(f"{node.target} {reason}", where=f"node {node.name!r}, {get_origin(node)}")


QUANTIZED_RULES: tuple[Rule, ...] = (
    spell_dequantize,
    merge_equal_quantizers,
)

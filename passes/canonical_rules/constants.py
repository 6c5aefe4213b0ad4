"""What is computed from constants alone is computed now and stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from planish.ir.graph import Graph
from planish.ir.ops import follows_mode, is_overload
from planish.ir.origin import get_origin

from .rewriting import store_tensor

aten = torch.ops.aten

# What -inf and inf become in a mask: added to a score, exp() of it is still exactly 0.
_LARGE = 1e30

_LARGEST = 1 << 30  # bytes of a constant that is computed here

_RANDOM = torch.Tag.nondeterministic_seeded


def fold_constants(graph: Graph) -> bool:
    """Replace what reads only stored constants and numbers by a stored tensor or a number.

    Trainable tensors are no constants: what is computed from them stays, so that it trains.
    """
    known: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        value = _evaluate(graph, node, known)
        if value is not None:
            known[node] = value
    changed = False
    for node, value in known.items():
        if node.op == "call_function":
            changed |= _replace(graph, node, value, known)
    if changed:
        graph.prune_dead()
    return changed | _bound_masks(graph)


def _evaluate(graph: Graph, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    """Return a node's constant value, or None if it depends on inputs or trains."""
    if node.op == "get_attr":
        tensor = graph.attribute(str(node.target))
        return None if tensor.requires_grad else tensor.detach()
    if node.op != "call_function":
        return None
    if isinstance(node.meta.get("val"), int | float | bool):
        return node.meta["val"]  # a size that turned out to be fixed
    if is_overload(node.target) and not _foldable(node):
        return None
    if any(operand not in known for operand in node.all_input_nodes) or _is_large(node):
        return None
    args, kwargs = map_arg((node.args, node.kwargs), known.__getitem__)
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]


def _foldable(node: fx.Node) -> bool:
    target: Any = node.target
    quantizes = target.namespace in ("planish", "quantized_decomposed")
    return not (quantizes or _RANDOM in target.tags or follows_mode(node))


def _is_large(node: fx.Node) -> bool:
    """Whether a constant is too large to store: no real model has one like it."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.numel() * value.element_size() > _LARGEST


def _replace(graph: Graph, node: fx.Node, value: Any, known: dict[fx.Node, Any]) -> bool:
    """Let the readers of a constant that are not constants themselves read its value."""
    readers = [reader for reader in node.users if reader not in known]
    if not readers or not isinstance(value, torch.Tensor | int | float | bool):
        return False
    new: Any = value
    if isinstance(value, torch.Tensor):
        name = "constants." + get_origin(node).name.replace(".", "_").replace(" ", "_")
        new = store_tensor(graph, name, value.contiguous(), node)
    for reader in readers:
        _substitute(reader, node, new)
    return True


def _substitute(reader: fx.Node, old: fx.Node, new: Any) -> None:
    swap = {old: new}
    reader.args = map_arg(reader.args, lambda n: swap.get(n, n))
    reader.kwargs = map_arg(reader.kwargs, lambda n: swap.get(n, n))


def _bound_masks(graph: Graph) -> bool:
    """Replace infinities in stored constants, as masks have them, by large numbers."""
    changed = False
    halves = any(node.meta["val"].dtype == torch.float16 for node in graph.nodes if _tensor(node))
    # The same number in every type of the graph, so that it is itself when it is cast.
    bound = torch.finfo(torch.float16).max if halves else _LARGE
    for tensor in graph.attributes.values():
        if tensor.requires_grad or not tensor.is_floating_point():
            continue
        if bool(torch.isinf(tensor).any()):
            tensor.clamp_(-bound, bound)
            changed = True
    return changed


def _tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)

"""Brings fake-quantize nodes of other tools to where integer operators make their results.

    fake_quantize(move(x))       ->  move(fake_quantize(x))
    fake_quantize(cat([a, b]))   ->  cat([fake_quantize(a), fake_quantize(b)])
    fake_quantize(relu(move(x))) ->  move(fake_quantize(relu(x)))

All are exact: moving and selecting values commute with a function of each value. What insert-qdq
places stands there already, and stays as it is.
"""

from __future__ import annotations

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import Quantization, activations, arguments, quantization, row, set_argument
from planish.ir.origin import get_origin

from ..quantization.observers import QParams
from ..quantization.obstacles import obstacle
from .integer_patterns import eight_bits, fake_quantize, read_qparams


def hoist_quantizers(graph: Graph) -> None:
    """Move every fake-quantize of one scale in front of the operators that only move values."""
    waiting = [node for node in graph.calls if node.target is fake_quantize and eight_bits(node)]
    moved = False
    while waiting:
        node = waiting.pop()
        while _hoist_clamp(graph, node):
            moved = True
        if _can_hoist(graph, node):
            waiting += _hoist(graph, node)
            moved = True
    if moved:
        graph.prune_dead().infer()


def _can_hoist(graph: Graph, node: fx.Node) -> bool:
    move = activations(node)[0]
    if move.op != "call_function" or quantization(move) is not Quantization.SAME_SCALE:
        return False
    if move.target is fake_quantize or len(move.users) != 1 or obstacle(move) is not None:
        return False
    qparams = read_qparams(graph, node)
    known = [_qparams_behind(graph, source) for source in activations(move)]
    return bool(known) and any(each != qparams for each in known)


def _hoist_clamp(graph: Graph, node: fx.Node) -> bool:
    """Let the clamps in front of a fake-quantize stand before what moves values; say if one did."""
    clamps: list[fx.Node] = []
    move = activations(node)[0]
    while move.op == "call_function" and quantization(move) is Quantization.CLAMP:
        clamps.append(move)
        move = activations(move)[0]
    if not clamps or any(len(each.users) != 1 for each in (*clamps, move)):
        return False
    if move.op != "call_function" or quantization(move) is not Quantization.SAME_SCALE:
        return False
    qparams = read_qparams(graph, node)
    known = [_qparams_behind(graph, source) for source in activations(move)]
    if move.target is fake_quantize or row(move).name == "pad" or all(q == qparams for q in known):
        return False
    first = clamps[-1]
    made: dict[fx.Node, fx.Node] = {}
    with graph.fx.inserting_before(move):
        for source in dict.fromkeys(activations(move)):
            made[source] = graph.fx.node_copy(first, lambda _, source=source: source)
            made[source].meta = {**first.meta, "val": source.meta["val"]}
    for source, new in made.items():
        move.replace_input_with(source, new)
    first.replace_all_uses_with(move)
    graph.fx.erase_node(first)
    return True


def _qparams_behind(graph: Graph, node: fx.Node) -> QParams | None:
    """Follow moves of one value back to a fake-quantize."""
    while node.op == "call_function" and node.target is not fake_quantize:
        sources = activations(node)
        if quantization(node) is not Quantization.SAME_SCALE or len(sources) != 1:
            return None
        node = sources[0]
    if node.op != "call_function" or not eight_bits(node):
        return None
    return read_qparams(graph, node)


def _hoist(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """Quantize what the move reads instead of what it gives; return the new fake-quantizes."""
    move = activations(node)[0]
    rest = node.args[1:]
    made: dict[fx.Node, fx.Node] = {}
    with graph.fx.inserting_before(move):
        operands = [o for o in rest if isinstance(o, fx.Node)]
        copies = {o: graph.fx.get_attr(str(o.target)) for o in operands}
        for copy, original in zip(copies.values(), operands, strict=True):
            copy.meta = dict(original.meta)
        shared = tuple(copies[o] if isinstance(o, fx.Node) else o for o in rest)
        for source in dict.fromkeys(activations(move)):
            new = graph.fx.create_node("call_function", fake_quantize, (source, *shared))
            new.meta = {"origin": get_origin(node), "val": source.meta["val"]}
            made[source] = new
    for source, new in made.items():
        move.replace_input_with(source, new)
    if row(move).name == "pad":
        q = read_qparams(graph, node)
        value = torch.tensor(float(arguments(move)["value"]))
        simulated = torch.ops.planish.fake_quantize.default(
            value, torch.tensor(q.scale), torch.tensor(q.zero_point), None, q.lo, q.hi
        )
        set_argument(move, "value", float(simulated))
    node.replace_all_uses_with(move)
    graph.fx.erase_node(node)
    return list(made.values())

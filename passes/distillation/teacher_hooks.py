"""The surgery of distillation: a frozen teacher copied into the student's graph, and adapters."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from planish.ir.graph import Graph
from planish.ir.ops import follows_mode, set_training
from planish.ir.origin import Origin

from .teacher_taps import Tap, width_axis

# The annotation of a graph that holds a teacher; `InsertTeacherHooks` describes its content.
HOOKS = "teacher-hooks"


def without_hooks(graph: Graph) -> Graph:
    """Take teacher, taps, adapters and annotation out of `graph`, in place; call `infer` after."""
    own = graph.annotations.pop(HOOKS)["outputs"]
    graph.fx.output_node().args = (tuple(graph.outputs[:own]),)
    return _prune_unused(graph)


def _prune_unused(graph: Graph) -> Graph:
    """Remove what no output needs; dropout too, which torch.fx keeps because it is random."""
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users:
            graph.fx.erase_node(node)
    return graph.prune_dead()


def student_module(graph: Graph) -> fx.GraphModule:
    """Return a module of the model alone, in eval mode, that shares the tensors of `graph`.

    What is trained in `graph` is measured here, without the teacher's work.
    """
    copied = Graph(
        fx.GraphModule(graph.module, copy.deepcopy(graph.fx)),
        graph.level,
        graph.inputs,
        graph.structure,
        annotations=dict(graph.annotations),
    ).eval()
    if HOOKS in copied.annotations:
        without_hooks(copied)
    copied.module.recompile()
    return copied.module


class Hooks:
    """The teacher's copy inside the student's graph, and the outputs that it adds."""

    def __init__(self, graph: Graph, teacher: Graph, seed: int) -> None:
        self.graph = graph
        self.flat = graph.outputs
        self.own = len(self.flat)
        self.adapters: list[str] = []
        self._generator = torch.Generator().manual_seed(seed)
        self._copies = _copy_teacher(graph, teacher)
        self._logits = self._copies[teacher.outputs[0]]
        self._prefix = _free_prefix(graph, "adapter")

    def logits(self) -> dict[str, int]:
        """Return the flat outputs that hold the logits of both."""
        return {"student": 0, "teacher": self._index(self._logits)}

    def pair(self, tap: Tap, *, adapt: bool) -> dict[str, int]:
        """Return the flat outputs of a tap, the student's through an adapter if widths differ."""
        own, other = tap.student, self._copies[tap.teacher]
        axis = width_axis(self.graph, own)
        widths = int(self.graph.shape(own)[axis] or 0), int(tap.teacher.meta["val"].shape[axis])
        if adapt and widths[0] != widths[1]:
            own = self._adapter(tap, *widths)
        return {"student": self._index(own), "teacher": self._index(other)}

    def finish(self) -> None:
        """Write the outputs, drop what of the teacher no output needs, infer shapes."""
        self.graph.fx.output_node().args = (tuple(self.flat),)
        _prune_unused(self.graph).infer()

    def _index(self, node: fx.Node) -> int:
        if node not in self.flat[self.own :]:
            self.flat.append(node)
        return self.flat.index(node, self.own)

    def _adapter(self, tap: Tap, width: int, wanted: int) -> fx.Node:
        """Add a layer from `width` to `wanted` channels, initialized as torch does its layers."""
        name = f"{self._prefix}.{tap.name.replace('.', '_')}"
        image = len(self.graph.shape(tap.student)) == 4
        bound = 1 / math.sqrt(width)
        shape = (wanted, width, 1, 1) if image else (wanted, width)
        operands = [tap.student]
        for leaf, size in (("weight", shape), ("bias", (wanted,))):
            value = torch.empty(size).uniform_(-bound, bound, generator=self._generator)
            stored = self.graph.new_attribute(f"{name}.{leaf}", value, trainable=True)
            operands.append(self._node("get_attr", stored, (), f"{name}.{leaf}"))
        self.adapters.append(tap.name)
        if not image:
            return self._node("call_function", torch.ops.aten.linear.default, (*operands,), name)
        arguments = (*operands, [1, 1], [0, 0], [1, 1], 1)
        return self._node("call_function", torch.ops.aten.conv2d.default, arguments, name)

    def _node(self, op: str, target: Any, args: tuple[Any, ...], name: str) -> fx.Node:
        with self.graph.fx.inserting_before(self.graph.fx.output_node()):
            node = self.graph.fx.create_node(op, target, args, name=name.replace(".", "_"))
        node.meta["origin"] = Origin(name)
        return node


def _free_prefix(graph: Graph, wanted: str) -> str:
    """Return `wanted`, or `wanted_1`, ... where the student's tensors already use that."""
    taken = {name.partition(".")[0] for name in graph.attributes}
    prefix, count = wanted, 0
    while prefix in taken:
        count += 1
        prefix = f"{wanted}_{count}"
    return prefix


def _copy_teacher(graph: Graph, teacher: Graph) -> dict[fx.Node, fx.Node]:
    """Copy the teacher's nodes to the end of the student's, frozen; return old -> new."""
    prefix = _free_prefix(graph, "teacher")
    for name, value in teacher.attributes.items():
        graph.set_attribute(f"{prefix}.{name}", value)
    placeholders = (node for node in graph.nodes if node.op == "placeholder")
    copies: dict[fx.Node, fx.Node] = {}
    for node in teacher.nodes:
        if node.op == "placeholder":
            copies[node] = next(placeholders)
        elif node.op != "output":
            copies[node] = _copy_node(graph, node, copies, prefix)
    return copies


def _copy_node(graph: Graph, node: fx.Node, copies: dict[fx.Node, fx.Node], prefix: str) -> fx.Node:
    target = f"{prefix}.{node.target}" if node.op == "get_attr" else node.target
    args, kwargs = map_arg((node.args, node.kwargs), copies.__getitem__)
    name = f"{prefix}_{node.name}"
    with graph.fx.inserting_before(graph.fx.output_node()):
        copied = graph.fx.create_node(node.op, target, args, kwargs, name=name)
    origin = node.meta.get("origin") or Origin(node.name)
    copied.meta["origin"] = Origin(f"{prefix}.{origin.name}", origin.file, origin.line)
    if follows_mode(copied):
        set_training(copied, False)
    copied.meta["frozen"] = True
    return copied

"""What rules are made of: which operators a rule looks at, and how it replaces a node.

Every node that a rule makes has its shape inferred at once, so that the next rule can read it.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.infer import infer_node
from planish.ir.origin import Origin, get_origin
from planish.ir.printer import operator_label

aten = torch.ops.aten

# A rule takes a graph and a node, and says whether it rewrote it.
Rule = Callable[[Graph, fx.Node], bool]

# The operators that each rule looks at; a rule without an entry looks at every operator.
TARGETS: dict[Rule, tuple[Any, ...]] = {}


def looks_at(*targets: Any) -> Callable[[Rule], Rule]:
    """Let a rule see only nodes of these operators."""

    def note(rule: Rule) -> Rule:
        TARGETS[rule] = targets
        return rule

    return note


class Rewriter:
    """Builds what takes the place of one node, right before it.

    The last new node inherits the origin; those on the way get names of their own below it:
    "encoder.attention" -> "encoder.attention.softmax".
    """

    def __init__(self, graph: Graph, node: fx.Node) -> None:
        self.graph, self.node = graph, node
        self._labels: Counter[str] = Counter()

    def call(
        self,
        target: Any,
        *args: Any,
        label: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> fx.Node:
        """Add a call before the node; `label` names it below the node's origin."""
        with self.graph.fx.inserting_before(self.node):
            new = self.graph.fx.call_function(target, args, options)
        origin = get_origin(self.node)
        label = label or operator_label(new).split(".")[0]
        count = self._labels[label]
        self._labels[label] += 1
        name = f"{origin.name}.{label}_{count}" if count else f"{origin.name}.{label}"
        new.meta["origin"] = Origin(name, origin.file, origin.line)
        infer_node(new)
        return new

    def sizes(self, like: fx.Node) -> list[Any]:
        """Return a tensor's sizes; an open one as a node that reads it."""
        return [
            self.call(aten.sym_size.int, like, axis) if size is None else size
            for axis, size in enumerate(self.graph.shape(like))
        ]

    def store(self, name: str, value: torch.Tensor, *, trainable: bool = False) -> fx.Node:
        """Store a tensor and return a node that reads it."""
        return store_tensor(self.graph, name, value, self.node, trainable=trainable)

    def finish(self, target: Any, *args: Any) -> fx.Node:
        """Put a call in the place of the node, with its origin."""
        return replace_with(self.graph, self.node, target, args)

    def become(self, other: fx.Node) -> fx.Node:
        """Let the readers of the node read `other` instead; `other` inherits the origin."""
        if other.op == "call_function":
            other.meta["origin"] = get_origin(self.node)
        return forward(self.graph, self.node, other)


def forward(graph: Graph, node: fx.Node, other: fx.Node) -> fx.Node:
    """Remove a node; its readers read `other`."""
    node.replace_all_uses_with(other)
    graph.fx.erase_node(node)
    return other


def replace_with(graph: Graph, node: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
    """Put a call in the place of `node`, with its origin, and remove `node`."""
    with graph.fx.inserting_before(node):
        new = graph.fx.call_function(target, args)
    new.meta["origin"] = get_origin(node)
    infer_node(new)
    return forward(graph, node, new)


def store_tensor(
    graph: Graph, name: str, value: torch.Tensor, before: fx.Node, *, trainable: bool = False
) -> fx.Node:
    """Store a tensor under a free name; return a node before `before` that reads it."""
    node = graph.insert_tensor(name, value, before, trainable=trainable)
    infer_node(node, graph.module)
    return node


def tensor_name(node: fx.Node, role: str) -> str:
    """Return the name of a new stored tensor of a node: its layer's path and a role."""
    return f"{get_origin(node).name.replace(' ', '_')}.{role}"


def is_call(value: Any, *targets: Any) -> TypeGuard[Any]:
    """Whether a value is a node of one of these operators."""
    return isinstance(value, fx.Node) and value.op == "call_function" and value.target in targets


def is_unpacked(node: fx.Node) -> bool:
    """Whether all that read a node of several results take one of them each."""
    return all(user.target is operator.getitem for user in node.users)


def reshape_sizes(sizes: Iterable[int | None]) -> list[int]:
    """Return sizes as reshape takes them: an open one is what the others leave."""
    return [-1 if size is None else size for size in sizes]


def rank(node: fx.Node) -> int:
    """The number of a tensor's axes."""
    return len(node.meta["val"].shape)


def same_shape(one: fx.Node, other: fx.Node) -> bool:
    """Whether two tensors have equal sizes, the open ones included."""
    first, second = one.meta["val"].shape, other.meta["val"].shape
    return [str(size) for size in first] == [str(size) for size in second]

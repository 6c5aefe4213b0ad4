"""How channels flow through a graph, operator by operator, as the operator table says.

Each tensor has channels on one axis: a list of atoms (`channel_atoms`). A weight makes new ones;
the operators after it hand them on, unite them with others, or hold them fast. Whatever isn't known
to hand channels on holds them fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import Channels, activations, arguments, row, stored
from planish.ir.origin import get_origin

from .channel_atoms import Atoms, AtomTable


@dataclass(frozen=True)
class Carried:
    """A tensor whose channels are known: one atom an entry of `axis`."""

    axis: int
    atoms: Atoms


@dataclass(frozen=True)
class Opaque:
    """A tensor none of whose axes may lose an entry, and why."""

    reason: str


@dataclass(frozen=True)
class Slot:
    """An axis of a stored tensor that holds channels, as one operator reads it."""

    tensor: str
    axis: int
    atoms: Atoms
    reader: fx.Node


@dataclass(frozen=True)
class Source:
    """A node whose weight makes channels, on `axis` of its value."""

    node: fx.Node
    axis: int
    atoms: Atoms


class ChannelFlow:
    """Walks a canonical graph once and collects atoms, slots, sources.

    Attributes:
        table: All atoms.
        slots: Where stored tensors hold channels.
        sources: The nodes that make channels, in execution order.
        group_counts: For convolutions whose `groups` argument counts channels (depthwise and its
            kin): one atom a group.

    Raises:
        OperatorError: An operator without a row.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.table = AtomTable()
        self.slots: list[Slot] = []
        self.sources: list[Source] = []
        self.group_counts: dict[fx.Node, Atoms] = {}
        self._values: dict[fx.Node, Carried | Opaque] = {}
        rules = {
            Channels.PRODUCES: self._produces,
            Channels.TIES: self._ties,
            Channels.POOLS: self._pools,
            Channels.NORMALIZES: self._normalizes,
            Channels.CONCATENATES: self._concatenates,
            Channels.FLATTENS: self._flattens,
            Channels.FIXED: self._fixes,
        }
        for node in graph.nodes:
            if node.op == "placeholder":
                self._values[node] = Opaque(f"tied to the model's input {node.name!r}")
            elif node.op == "call_function":
                rule = rules[row(node).channels] if not _stray(node) else self._fixes
                self._values[node] = rule(node)
        for node in graph.outputs:
            self._hold(node, "part of the model's output")

    # What is known of a tensor.

    def _at(self, node: fx.Node, axis: int, count: int, reader: fx.Node) -> Atoms:
        """Return the `count` atoms that a reader finds on an axis; protected ones if unknown."""
        value = self._value(node)
        if isinstance(value, Carried) and value.axis == axis:
            assert len(value.atoms) == count, (node, reader)
            return value.atoms
        if isinstance(value, Opaque):
            return self.table.fresh(count, value.reason)
        reason = f"not on the axis that {_name(reader)} takes for channels"
        self.table.protect(value.atoms, reason)
        return self.table.fresh(count, reason)

    def _value(self, node: fx.Node) -> Carried | Opaque:
        if node.op == "get_attr":
            return Opaque(f"tied to the stored tensor {node.target!r}")
        return self._values[node]

    def _hold(self, node: fx.Node, reason: str) -> None:
        value = self._values.get(node)
        if isinstance(value, Carried):
            self.table.protect(value.atoms, reason)

    def _fixes(self, node: fx.Node) -> Opaque:
        """Nothing may be removed from what the node reads, nor from what it makes."""
        reason = f"read by {_name(node)}, which mixes or moves channels"
        for operand in node.all_input_nodes:
            if not _measures_another_axis(node, self._values.get(operand)):
                self._hold(operand, reason)
        return Opaque(f"tied to {_name(node)}, which mixes or moves channels")

    # One rule for each kind of flow.

    def _produces(self, node: fx.Node) -> Carried | Opaque:
        """weight: [out, in / groups, ...], or the two swapped where the row says so."""
        values, axes = arguments(node), dict(row(node).parameters)
        weight, groups, out = stored(values["weight"]), values.get("groups", 1), axes["weight"]
        if weight is None or (groups > 1 and out != 0):
            return self._fixes(node)
        (operand,) = activations(node)
        shape = self.graph.attribute(weight).shape
        axis = operand.meta["val"].ndim - 1 - (len(shape) - 2)  # what follows it is spatial
        taken = self._at(operand, axis, shape[1 - out] * groups, node)
        made = self.table.fresh(shape[out])
        if groups == 1 or self._share_out(node, taken, made, groups):
            self._slot(weight, 1 - out, taken[: shape[1 - out]], node)
        self._parameters(node, made)
        self.sources.append(Source(node, axis, made))
        return Carried(axis, made)

    def _share_out(self, node: fx.Node, taken: Atoms, made: Atoms, groups: int) -> bool:
        """Keep the groups of a convolution alike; return whether one may lose inputs.

        Where a group has a single input or output, groups go as a whole (depthwise convolution).
        Elsewhere each group loses the same positions.
        """
        by_group, made_by_group = taken.reshape(groups, -1), made.reshape(groups, -1)
        per_group, made_per_group = by_group.shape[1], made_by_group.shape[1]
        if per_group == 1 or made_per_group == 1:
            head = by_group[:, 0]
            self.table.unite(np.repeat(head, per_group), taken)
            self.table.unite(np.repeat(head, made_per_group), made)
            self.group_counts[node] = head
            return False
        self.table.unite(np.tile(by_group[0], groups), taken)
        self.table.unite(np.tile(made_by_group[0], groups), made)
        return True

    def _normalizes(self, node: fx.Node) -> Carried | Opaque:
        (operand,) = activations(node)
        count = self.graph.shape(node)[1]
        if count is None:
            return self._fixes(node)
        atoms = self._at(operand, 1, count, node)
        self._parameters(node, atoms)
        return Carried(1, atoms)

    def _pools(self, node: fx.Node) -> Carried | Opaque:
        (operand,) = activations(node)
        value = self._value(operand)
        image = operand.meta["val"].ndim == 4 and isinstance(value, Carried) and value.axis == 1
        return value if image or isinstance(value, Opaque) else self._fixes(node)

    def _ties(self, node: fx.Node) -> Carried | Opaque:
        """Unite the operands' channels; those of size 1, or none, on that axis spread over it."""
        shape, operands = self.graph.shape(node), _tensors(activations(node))
        axis = next((a for a in (self._spread(node, o) for o in operands) if a is not None), None)
        if axis is None:
            for operand in operands:
                self._hold(operand, f"spread over the channels of {_name(node)}")
            return self._opaque(operands, node)
        whole, count = [], shape[axis] or 0
        for operand in operands:
            sizes = self.graph.shape(operand)
            own = axis - (len(shape) - len(sizes))
            if own < 0 or (sizes[own] == 1 and count > 1):
                self._hold(operand, f"spread over the channels of {_name(node)}")
            elif operand.op == "get_attr":
                whole.append(self.table.fresh(count))
                self._slot(str(operand.target), own, whole[-1], node)
            else:
                whole.append(self._at(operand, own, count, node))
        for atoms in whole[1:]:
            self.table.unite(whole[0], atoms)
        self._parameters(node, whole[0])
        return Carried(axis, whole[0])

    def _spread(self, node: fx.Node, operand: fx.Node) -> int | None:
        """Return the axis of the node's value that an operand's channels fill, if they do."""
        value, shape = self._value(operand), self.graph.shape(node)
        if not isinstance(value, Carried):
            return None
        axis = value.axis + len(shape) - operand.meta["val"].ndim
        return axis if shape[axis] == len(value.atoms) else None

    def _opaque(self, operands: list[fx.Node], node: fx.Node) -> Opaque:
        reasons = [v.reason for v in map(self._value, operands) if isinstance(v, Opaque)]
        return Opaque(reasons[0] if reasons else f"tied to {_name(node)}")

    def _concatenates(self, node: fx.Node) -> Carried | Opaque:
        operands = activations(node)
        carried = [v for v in map(self._value, operands) if isinstance(v, Carried)]
        axes = {value.axis for value in carried}
        if not carried:
            return self._opaque(operands, node)
        axis, *others = axes
        counts = [self.graph.shape(operand)[axis] for operand in operands]
        if others or None in counts:
            return self._fixes(node)
        parts = [
            self._at(operand, axis, count or 0, node)
            for operand, count in zip(operands, counts, strict=True)
        ]
        if axis == arguments(node)["dim"] % node.meta["val"].ndim:
            return Carried(axis, np.concatenate(parts))
        for atoms in parts[1:]:
            self.table.unite(parts[0], atoms)
        return Carried(axis, parts[0])

    def _flattens(self, node: fx.Node) -> Carried | Opaque:
        """Row-major: [before, channels, after] -> channel c at each (before, c, after)."""
        (operand,) = activations(node)
        value, sizes = self._value(operand), self.graph.shape(operand)
        if isinstance(value, Opaque):
            return value
        first = arguments(node)["start_dim"] % len(sizes)
        last = arguments(node)["end_dim"] % len(sizes)
        if value.axis < first:
            return value
        if value.axis > last:
            return Carried(value.axis - (last - first), value.atoms)
        before, after = sizes[first : value.axis], sizes[value.axis + 1 : last + 1]
        if None in (*before, *after):
            return self._fixes(node)
        runs = np.repeat(value.atoms, prod(size or 0 for size in after))
        return Carried(first, np.tile(runs, prod(size or 0 for size in before)))

    # Stored tensors.

    def _parameters(self, node: fx.Node, atoms: Atoms) -> None:
        """Note where the row's parameters hold the channels `atoms`."""
        for name, axis in row(node).parameters:
            value = arguments(node)[name]
            if stored(value) is not None:
                self._slot(str(value.target), axis, atoms, node)
            elif value is not None:
                self.table.protect(atoms, f"scaled by a computed tensor in {_name(node)}")
                self._hold(value, f"used as the {name} of {_name(node)}")

    def _slot(self, tensor: str, axis: int, atoms: Atoms, reader: fx.Node) -> None:
        self.slots.append(Slot(tensor, axis, atoms, reader))


def _stray(node: fx.Node) -> bool:
    """Whether a node reads a tensor with axes that its row says nothing about."""
    values = arguments(node)
    known = {*activations(node), *(values[name] for name, _ in row(node).parameters)}
    others = [operand for operand in node.all_input_nodes if operand not in known]
    return any(operand.meta["val"].ndim > 0 for operand in _tensors(others))


def _tensors(operands: list[fx.Node]) -> list[fx.Node]:
    """Leave out what is only a number, such as the open batch size."""
    return [node for node in operands if isinstance(node.meta["val"], torch.Tensor)]


def _measures_another_axis(node: fx.Node, value: Carried | Opaque | None) -> bool:
    """Whether a node reads nothing of a tensor but the size of an axis without channels."""
    if row(node).inputs or not isinstance(value, Carried):
        return False
    dim = arguments(node).get("dim")
    (operand,) = node.all_input_nodes
    return isinstance(dim, int) and dim % operand.meta["val"].ndim != value.axis


def _name(node: fx.Node) -> str:
    return f"{row(node).name} ({get_origin(node).name})"

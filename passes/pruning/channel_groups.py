"""Which channels of a graph live and die together: the analysis behind channel pruning.

`channel_groups(graph)` follows every channel through the graph (`channel_flow`) and returns units:
the smallest sets of channels that can be removed together. A unit spans every layer that a residual
addition, a concatenation, a depthwise convolution or a shared weight ties together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import fx
from torch.fx.node import map_arg

from planish.ir.graph import Graph
from planish.ir.origin import get_origin

from .channel_atoms import AtomTable
from .channel_flow import ChannelFlow, Slot

Units = NDArray[np.int64]


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer.

    Attributes:
        node: The node.
        name: Its origin's name.
        axis: The axis of its value that holds the channels.
        units: The unit of each channel that it makes.
    """

    node: fx.Node
    name: str
    axis: int
    units: Units


@dataclass(frozen=True)
class Cut:
    """An axis of a stored tensor that shrinks when units go: `units[i]` owns entry i."""

    tensor: str
    axis: int
    units: Units


@dataclass(frozen=True)
class Group:
    """Units that the same layers make, each layer equally many channels a unit.

    Attributes:
        units: In ascending order.
        layers: Index of each layer that makes them, and its channels a unit.
    """

    units: Units
    layers: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ChannelGroups:
    """The result of the analysis.

    Attributes:
        count: The number of units; they are numbered from 0 in execution order.
        layers: In execution order.
        groups: A partition of the units that any layer makes.
        cuts: At most one for each stored tensor (by its first name) and axis.
        group_counts: For convolutions whose `groups` argument counts channels: one unit a group.
        protected: The units that must stay, and why.
    """

    count: int
    layers: tuple[Layer, ...]
    groups: tuple[Group, ...]
    cuts: tuple[Cut, ...]
    group_counts: dict[fx.Node, Units]
    protected: dict[int, str]

    def protect(self, reasons: dict[int, str]) -> ChannelGroups:
        """Return a copy that protects more units; reasons known before are kept."""
        return replace(self, protected={**reasons, **self.protected})

    def free(self, group: Group) -> Units:
        """Return the units of a group that may be removed."""
        return np.array([u for u in group.units.tolist() if u not in self.protected], np.int64)


def channel_groups(graph: Graph) -> ChannelGroups:
    """Return the units of a canonical graph.

    Raises:
        OperatorError: An operator without a row in the operator table.
    """
    flow = ChannelFlow(graph)
    names = first_names(graph)
    _tie_shared_tensors(graph, flow, names)
    unit_of, protected = flow.table.units()
    layers = tuple(
        Layer(source.node, get_origin(source.node).name, source.axis, unit_of[source.atoms])
        for source in flow.sources
    )
    cuts = {(names[slot.tensor], slot.axis): unit_of[slot.atoms] for slot in flow.slots}
    return ChannelGroups(
        count=int(unit_of.max(initial=-1)) + 1,
        layers=layers,
        groups=_groups(layers),
        cuts=tuple(Cut(tensor, axis, units) for (tensor, axis), units in cuts.items()),
        group_counts={node: unit_of[atoms] for node, atoms in flow.group_counts.items()},
        protected=protected,
    )


def _groups(layers: tuple[Layer, ...]) -> tuple[Group, ...]:
    made_by: dict[int, Counter[int]] = defaultdict(Counter)
    for index, layer in enumerate(layers):
        for unit in layer.units.tolist():
            made_by[unit][index] += 1
    alike: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for unit in sorted(made_by):
        alike[tuple(sorted(made_by[unit].items()))].append(unit)
    return tuple(Group(np.array(units, np.int64), key) for key, units in alike.items())


def _tie_shared_tensors(graph: Graph, flow: ChannelFlow, names: dict[str, str]) -> None:
    """Let every reader of a stored tensor lose the same entries, or protect them.

    A tensor may be read by several nodes, and be stored under several names.
    """
    slots: dict[tuple[str, int], list[Slot]] = defaultdict(list)
    for slot in flow.slots:
        slots[names[slot.tensor], slot.axis].append(slot)
    reads = _reads(graph, names)
    memory = _memory(graph, names)
    for (tensor, axis), known in slots.items():
        covered = Counter(slot.reader for slot in known)
        for reader, count in reads[tensor].items():
            if covered[reader] < count:
                _protect(flow.table, known, f"{_read(tensor, axis, reader)} needs all of it")
        if memory[tensor] > 1:
            _protect(flow.table, known, f"tensor {tensor!r} shares its memory with another one")
        for slot in known[1:]:
            if len(slot.atoms) == len(known[0].atoms):
                flow.table.unite(known[0].atoms, slot.atoms)
            else:
                _protect(flow.table, known, f"{_read(tensor, axis, slot.reader)} differs")


def first_names(graph: Graph) -> dict[str, str]:
    """Map each stored name to the first name of the same tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in graph.attributes.items()}


def _memory(graph: Graph, names: dict[str, str]) -> dict[str, int]:
    """For each tensor, count the tensors (itself included) that lie in the same memory."""
    place = {
        name: graph.attribute(name).untyped_storage().data_ptr() for name in set(names.values())
    }
    shared = Counter(place.values())
    return {name: shared[address] for name, address in place.items()}


def _reads(graph: Graph, names: dict[str, str]) -> dict[str, Counter[fx.Node]]:
    """Count, for each tensor, the arguments by which each node reads it."""
    reads: dict[str, Counter[fx.Node]] = defaultdict(Counter)
    for node in graph.nodes:
        if node.op == "get_attr":
            continue

        def note(operand: fx.Node, reader: fx.Node = node) -> fx.Node:
            if operand.op == "get_attr":
                reads[names[str(operand.target)]][reader] += 1
            return operand

        map_arg((node.args, node.kwargs), note)
    return reads


def _read(tensor: str, axis: int, reader: fx.Node) -> str:
    return f"axis {axis} of {tensor!r} is also read by {get_origin(reader).name}, which"


def _protect(table: AtomTable, slots: list[Slot], reason: str) -> None:
    for slot in slots:
        table.protect(slot.atoms, reason)

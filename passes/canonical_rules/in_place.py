"""In-place operators become functional ones, once, before any other rule.

What a write reaches through views is spelled out: a write to `x[:, 0:2]` makes a new `x` of the
written piece and the untouched rest, and whoever reads `x` or another view of it later reads that.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import fx

from planish.ir.errors import OperatorError
from planish.ir.graph import Graph
from planish.ir.infer import infer_node
from planish.ir.ops import arguments, is_overload
from planish.ir.origin import get_origin

from .rewriting import reshape_sizes, same_shape

aten = torch.ops.aten


def replace_in_place(graph: Graph) -> None:
    """Replace every `op_(x, ...)` by `op(x, ...)`; later readers of x's memory read the new value.

    Raises:
        OperatorError: The write goes to a stored tensor, or through a view that can't be undone.
    """
    writes = [node for node in graph.calls if _functional(node.target) is not None]
    if not writes:
        return
    memory = {node: _storage(node) for node in graph.nodes}
    for node in writes:
        _Write(graph, node, memory).functionalize()


def _storage(node: fx.Node) -> int | None:
    """Identify the memory of a node's value; inference runs the operators' aliasing for real."""
    value = node.meta.get("val")
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def _functional(target: Any) -> Any:
    """Return the functional overload of an in-place one, or None if it isn't in place."""
    if not is_overload(target) or not target._schema.is_mutable:
        return None
    name = target._schema.name.split("::")[1]
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    return getattr(packet, target._overloadname, None)


class _Write:
    """One in-place operator on its way to a functional one."""

    def __init__(self, graph: Graph, node: fx.Node, memory: dict[fx.Node, int | None]) -> None:
        self.graph, self.node, self.memory = graph, node, memory
        assert isinstance(node.args[0], fx.Node)
        self.written: fx.Node = node.args[0]
        self.order = {other: index for index, other in enumerate(graph.fx.nodes)}
        self.anchor = node  # new nodes follow this one

    def functionalize(self) -> None:
        relatives = self._relatives()
        self.node.target = _functional(self.node.target)
        infer_node(self.node)
        chain = self._chain()
        if chain[-1].op == "get_attr":
            self._refuse(f"on the stored tensor {chain[-1].target}")
        later = {relative: self._later(relative) for relative in relatives}
        fresh = {self.written: self.node}
        if any(users for relative, users in later.items() if relative is not self.written):
            for view, base in pairwise(chain):
                fresh[base] = self._scatter(view, base, fresh[view])
        for relative, users in later.items():
            if not users:
                continue
            new = self._renew(relative, fresh)
            for user in users:
                user.replace_input_with(relative, new)

    def _relatives(self) -> list[fx.Node]:
        """Every earlier node whose value lies in the memory that is written, itself included."""
        place = self.memory[self.written]
        found = [
            other
            for other, storage in self.memory.items()
            if storage == place and self.order.get(other, len(self.order)) < self.order[self.node]
        ]
        return found if self.written in found else [*found, self.written]

    def _later(self, relative: fx.Node) -> list[fx.Node]:
        after = self.order[self.node]
        return [user for user in relative.users if self.order.get(user, -1) > after]

    def _chain(self) -> list[fx.Node]:
        """The written value, what it is a view of, and so on up to what is no view."""
        chain = [self.written]
        while self._is_view(chain[-1]):
            chain.append(chain[-1].args[0])  # type: ignore[arg-type]
        return chain

    def _is_view(self, node: fx.Node) -> bool:
        if node.op != "call_function" or not is_overload(node.target):
            return False
        schema: Any = node.target._schema  # type: ignore[union-attr]
        first = schema.arguments[0] if schema.arguments else None
        source = node.args[0] if node.args else None
        may = first is not None and first.alias_info is not None and not schema.is_mutable
        return may and isinstance(source, fx.Node) and self.memory[source] == self.memory[node]

    def _renew(self, relative: fx.Node, fresh: dict[fx.Node, fx.Node]) -> fx.Node:
        """Return the node that holds a relative's value after the write."""
        if relative not in fresh:
            source = relative.args[0]
            if not self._is_view(relative) or not isinstance(source, fx.Node):
                return self._refuse(f"reaches {relative.name}, no view that planish knows")
            args = (self._renew(source, fresh), *relative.args[1:])
            fresh[relative] = self._add(relative.target, *args, **relative.kwargs)
        return fresh[relative]

    def _scatter(self, view: fx.Node, base: fx.Node, piece: fx.Node) -> fx.Node:
        """Return `base` with the part that `view` shows replaced by `piece`."""
        values, sizes = arguments(view), self.graph.shape(base)
        if view.target in (aten.slice.Tensor, aten.select.int):
            return self._splice(view, base, piece)
        if view.target is aten.permute.default:
            order = [axis % len(sizes) for axis in values["dims"]]
            inverse = [order.index(axis) for axis in range(len(sizes))]
            return self._add(aten.permute.default, piece, inverse)
        if view.target is aten.transpose.int:
            return self._add(view.target, piece, values["dim0"], values["dim1"])
        if view.target is aten.t.default:
            return self._add(view.target, piece)
        if same_shape(view, base):
            return piece
        counts = [str(tensor.meta["val"].numel()) for tensor in (view, base)]
        open_sizes = sum(size is None for size in sizes)
        if counts[0] == counts[1] and open_sizes <= 1:
            return self._add(aten.reshape.default, piece, reshape_sizes(sizes))
        return self._refuse(f"on a view ({view.name})")

    def _splice(self, view: fx.Node, base: fx.Node, piece: fx.Node) -> fx.Node:
        values, sizes = arguments(view), self.graph.shape(base)
        axis = values["dim"] % len(sizes)
        size = sizes[axis]
        if view.target is aten.select.int:
            if size is None or not isinstance(values["index"], int):
                return self._refuse(f"on a view ({view.name}) of the open batch")
            start, end, step = values["index"] % size, values["index"] % size + 1, 1
            piece = self._add(aten.unsqueeze.default, piece, axis)
        elif size is None:
            everything = str(view.meta["val"].shape[axis]) == str(base.meta["val"].shape[axis])
            return piece if everything else self._refuse(f"on a view ({view.name}) of the batch")
        else:
            start, end, step = slice(values["start"], values["end"], values["step"]).indices(size)
        if step != 1:
            self._refuse(f"on a view ({view.name}) with a step")
        pieces = [piece]
        if start > 0:
            pieces.insert(0, self._add(aten.slice.Tensor, base, axis, 0, start))
        if end < size:
            pieces.append(self._add(aten.slice.Tensor, base, axis, end, size))
        return self._add(aten.cat.default, pieces, axis) if len(pieces) > 1 else piece

    def _add(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        with self.graph.fx.inserting_after(self.anchor):
            new = self.graph.fx.call_function(target, args, kwargs)
        self.anchor = new
        new.meta["origin"] = get_origin(self.node)
        infer_node(new)
        self.memory[new] = self.memory[self.written]
        return new

    def _refuse(self, why: str) -> Any:
        raise OperatorError(
            f"in-place {self.node.target} {why}",
            where=str(get_origin(self.node)),
            cure="use the functional form in the model (torch.relu instead of relu_)",
        )

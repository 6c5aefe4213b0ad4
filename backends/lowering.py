"""Integer graph in, plan out: each node becomes kernel calls on planned values."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
import torch.fx

from planish.ir import Graph, OperatorError
from planish.ir.ops import arguments
from planish.ir.signature import dtype_name

from .borders import wanted_border
from .copying import copy_into, emit_map, fill_halo
from .forms import find_rows
from .fusion import find_fusions
from .layout import (
    NO_HALO,
    Halo,
    Layout,
    as_matrix,
    as_rows,
    as_vector,
    dense_layout,
    loop_nest,
    loops_over,
    row_layout,
    vector_layout,
)
from .operators import BY_INDEX, BYTES, OPERATORS, sizes_of
from .plan import Plan
from .value import Value

_planish = torch.ops.planish
_QUANTIZE, _CONVOLUTION = _planish.quantize.default, _planish.conv2d_i8.default


class Lowering:
    """The state of lowering one graph.

    Attributes:
        graph: With its batch fixed.
        plan: What is being filled.
        values: The value of each node that has been lowered.
        fusion: Which nodes share a kernel.
        rows: Nodes of four axes that lie row-major.
    """

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph = graph
        self.plan = plan
        self.fusion = find_fusions(graph)
        self.values: dict[torch.fx.Node, Value] = {}
        self.rows = find_rows(graph, self.fusion)
        self._other_form: dict[tuple[Value, str], Value] = {}
        self._halos: dict[Value, tuple[Halo, int]] = {}

    def shape(self, node: torch.fx.Node) -> tuple[int, ...]:
        """Return a node's sizes, all known."""
        return sizes_of(node)

    def label(self, node: torch.fx.Node) -> str:
        """Return a node's name in listings: that of the model's layer."""
        return self.graph.origin(node).name or node.name

    def stored(self, node: torch.fx.Node | None) -> str | None:
        """Keep the tensor of a get_attr node in the artifact; return its name."""
        if node is None:
            return None
        if node.op != "get_attr":
            raise OperatorError(
                f"{node.name!r} is computed, but a kernel needs it stored",
                where=self.label(node),
                cure="only activations may be computed",
            )
        name = str(node.target)
        return self.plan.store(name, self.graph.attribute(name).detach().cpu().numpy())

    def value(self, node: torch.fx.Node) -> Value:
        """Return a node's value as it lies in memory; a stored int8 or uint8 tensor becomes one.

        Such a constant (a positional embedding, a layer's scale) is an activation like any other,
        except that it lies in the parameter memory, where loading puts it.
        """
        if node not in self.values and node.op == "get_attr":
            self.values[node] = self._constant(node)
        return self.values[node]

    def _constant(self, node: torch.fx.Node) -> Value:
        dtype = node.meta["val"].dtype
        if dtype not in BYTES:
            raise OperatorError(
                f"{node.name!r} is stored as {dtype_name(dtype)}, where a kernel needs quantized "
                "values",
                where=self.label(node),
                cure="quantize the stored tensor to int8 or uint8",
            )
        make = row_layout if node in self.rows else vector_layout
        layout = make(self.shape(node), self.plan.target.storage_dtype)
        shift = 128 if dtype == torch.int8 else 0
        parameter = self.plan.parameter(
            "constant",
            tensor=self.stored(node),
            shift=shift,
            dtype=layout.dtype,
            steps=list(layout.steps),
            base=layout.base,
            size=layout.size,
        )
        return Value(node.name, layout, "parameters", offset=parameter.offset, shift=shift)

    def new_integer(self, node: torch.fx.Node, layout: Layout | None = None) -> Value:
        """Make the value that a node's integer kernel writes, with the border its readers need.

        A kernel that can write in one way only gives its own layout.
        """
        last = self.fusion.last(node)
        shape = self.shape(last)
        storage = self.plan.target.storage_dtype
        halo, zero_point = NO_HALO, 0
        if layout is not None:
            pass
        elif len(shape) != 4 or node in self.rows:
            layout = row_layout(shape, storage)
        else:
            halo, zero_point = wanted_border(last)
            compact = node.target is _QUANTIZE and all(
                user.target is _CONVOLUTION and arguments(user)["groups"] == 1
                for user in last.users
            )
            multiple = self.plan.target.compact_multiple if compact else 0
            layout = vector_layout(shape, storage, halo, multiple)
        value = Value(last.name, layout)
        value.shift = 128 if last.meta["val"].dtype == torch.int8 else 0
        if halo != NO_HALO:
            self._halos[value] = (halo, zero_point)
            self._fill_once(value, zero_point)
        self.values[node] = self.values[last] = value
        return value

    def border(self, value: Value) -> tuple[Halo, int]:
        """Return the border that a value has, and what it holds."""
        return self._halos.get(value, (NO_HALO, 0))

    def _fill_once(self, value: Value, zero_point: int) -> None:
        """Write the border of a new value: at each call, but once on a GPU.

        There a launch costs more than memory, and no kernel writes outside of what it computes.
        """
        value.kept = self.plan.target.capability is not None
        fill_halo(self.plan, value, zero_point, once=value.kept)

    def strided(self, node: torch.fx.Node) -> Value:
        """Return a node's value in the integer region, its axes in any order and distance."""
        value = self.value(node)
        return self._kept((value, "strided"), lambda: self._packed(node)) if value.dense else value

    def walkable(self, node: torch.fx.Node) -> Value:
        """Return a value of the integer region that four loops can walk beside a dense one."""
        x = self.strided(node)
        nest = loop_nest(x.layout.shape, x.layout.steps, dense_layout(x.layout.shape, "").steps)
        return self.integer(node) if nest is None else x

    def integer(self, node: torch.fx.Node) -> Value:
        """Return a node's value as `vector_layout` has it, copied if need be."""
        return self._formed(node, "vector", as_vector)

    def row_major(self, node: torch.fx.Node) -> Value:
        """Return a node's value with its last axis side by side, copied if need be."""
        return self._formed(node, "rows", as_rows)

    def matrix(self, node: torch.fx.Node) -> Value:
        """Return a node's value as a matrix: all axes but the last are its rows."""
        return self._formed(node, "matrix", as_matrix)

    def dense(self, node: torch.fx.Node) -> Value:
        """Return a node's value row-major in its own dtype, converting it if need be."""
        value = self.value(node)
        return value if value.dense else self._kept((value, "dense"), lambda: self._unpacked(node))

    def _kept(self, key: tuple[Value, str], make: Callable[[], Value]) -> Value:
        if key not in self._other_form:
            self._other_form[key] = make()
        return self._other_form[key]

    def _packed(self, node: torch.fx.Node) -> Value:
        """Return a copy of a row-major uint8 or int8 tensor in the integer region."""
        x = self.values[node]
        y = self.new_integer(node)
        self.values[node] = x
        loops = loops_over(y.layout.shape, x.layout, y.layout, inner=1)
        numbers = (1.0, y.shift, 0, 0, 0)
        emit_map(self.plan, "shift", x, y, loops, self.label(node), numbers=numbers)
        return y

    def _unpacked(self, node: torch.fx.Node) -> Value:
        """Return a row-major copy of a value of the integer region, in its own dtype."""
        value, x = self.value(node), self.walkable(node)
        y = self.new_dense(node)
        self.values[node] = value
        loops = loops_over(y.layout.shape, x.layout, y.layout, inner=1)
        numbers = (1.0, -x.shift, 0, 0, 0)
        emit_map(self.plan, "shift", x, y, loops, self.label(node), numbers=numbers)
        return y

    def _formed(
        self, node: torch.fx.Node, form: str, see: Callable[[Layout], Layout | None]
    ) -> Value:
        """Return a node's value in a form: as it is, seen in another way, or copied."""
        value = self.strided(node)
        seen = see(value.layout)
        if seen == value.layout:
            return value
        if seen is not None:
            return value.view(value.name, seen)
        return self._kept((value, form), lambda: self._copied(value, form, see))

    def _copied(self, value: Value, form: str, see: Callable[[Layout], Layout | None]) -> Value:
        make = vector_layout if form == "vector" else row_layout
        copy = Value(
            f"{value.name}_{form}", make(value.layout.shape, value.layout.dtype), shift=value.shift
        )
        copy_into(self.plan, value, copy, value.name)
        seen = see(copy.layout)
        assert seen is not None
        return copy if seen == copy.layout else copy.view(copy.name, seen)

    def padded(self, node: torch.fx.Node, halo: Halo, zero_point: int) -> Value:
        """Return a node's integer value with at least this border, holding this value."""
        if halo == NO_HALO:
            return self.integer(node)
        value = self.strided(node)
        have, filled = self._halos.get(value, (NO_HALO, zero_point))
        if filled == zero_point and all(h >= w for h, w in zip(have, halo, strict=True)):
            return value
        layout = vector_layout(value.layout.shape, value.layout.dtype, halo)
        wider = Value(f"{value.name}_padded", layout, shift=value.shift)
        self._fill_once(wider, zero_point)
        copy_into(self.plan, value, wider, self.label(node))
        return wider

    def new_dense(self, node: torch.fx.Node) -> Value:
        """Make a row-major value in the node's own dtype."""
        layout = dense_layout(self.shape(node), dtype_name(node.meta["val"].dtype))
        value = Value(node.name, layout, dense=True)
        self.values[node] = value
        return value

    def run(self, node: torch.fx.Node) -> None:
        """Lower one integer node."""
        if node in self.fusion.joined:
            return
        entry = OPERATORS.get(node.target) or BY_INDEX.get(node.target, "movement:move")
        module, name = entry.split(":")
        function: Callable[[Lowering, torch.fx.Node], None] = getattr(
            importlib.import_module(f".lower.{module}", __package__), name
        )
        function(self, node)

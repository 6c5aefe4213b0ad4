"""Integer graph in, plan out: each node becomes kernel calls on planned values."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from planish.ir import Graph, OperatorError
from planish.ir.ops import arguments

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
    row_layout,
    vector_layout,
)
from .plan import Plan
from .value import Value

_planish, _aten = torch.ops.planish, torch.ops.aten

# Integer operators to "module:function" in `lower`; a function takes (lowering, node).
OPERATORS: dict[Any, str] = {
    _planish.quantize.default: "boundary:quantize",
    _planish.dequantize.default: "boundary:dequantize",
    _planish.conv2d_i8.default: "convolution:convolution",
    _planish.linear_i8.default: "convolution:linear",
    _planish.add_i8.default: "elementwise:add",
    _planish.mul_i8.default: "elementwise:mul",
    _planish.matmul_i8.default: "matmul:matmul",
    _planish.matmul_dq.default: "matmul:matmul",
    _planish.softmax_i8.default: "normalization:softmax",
    _planish.layer_norm_i8.default: "normalization:layer_norm",
    _planish.mean_i8.default: "normalization:mean",
    _planish.requantize_i8.default: "elementwise:requantize",
    _planish.clamp_i8.default: "elementwise:clamp",
    _planish.table_i8.default: "elementwise:table",
    _planish.conv_transpose2d_i8.default: "transposed:transposed_convolution",
    _planish.conv2d_dq.default: "real_layer:convolution",
    _planish.linear_dq.default: "real_layer:linear",
    _planish.resize_i8.default: "resampling:resize",
    _planish.pad_i8.default: "resampling:pad",
    _planish.max_pool2d_i8.default: "pooling:max_pool",
    _planish.avg_pool2d_i8.default: "pooling:average_pool",
    _planish.adaptive_avg_pool2d_i8.default: "pooling:adaptive_average_pool",
}
# Operators that only move values; on int8 or uint8 tensors they stay in the integer region.
MOVEMENTS = frozenset(
    {
        _aten.cat.default,
        _aten.flatten.using_ints,
        _aten.view.default,
        _aten.reshape.default,
        _aten.permute.default,
        _aten.transpose.int,
        _aten.slice.Tensor,
        _aten.unsqueeze.default,
        _aten.squeeze.default,
        _aten.squeeze.dim,
        _aten.squeeze.dims,
        _aten.expand.default,
        _aten.select.int,
        _aten.clone.default,
        _aten.contiguous.default,
        _aten.flip.default,
        _aten.channel_shuffle.default,
        _aten.pixel_shuffle.default,
        _aten.pixel_unshuffle.default,
        _aten.repeat.default,
        _aten.roll.default,
        _aten.index_select.default,
        _aten.upsample_nearest2d.default,
        _aten.reflection_pad2d.default,
        _aten.replication_pad2d.default,
        _aten.embedding.default,
    }
)
# Those of them that read an index, which may be computed.
BY_INDEX: dict[Any, str] = {
    _aten.embedding.default: "indexing:embedding",
    _aten.index_select.default: "indexing:index_select",
}
_BYTES = (torch.uint8, torch.int8)
_CONVOLUTION = _planish.conv2d_i8.default
_CONVOLUTIONS = (_CONVOLUTION, _planish.conv2d_dq.default)
_TRANSPOSED = _planish.conv_transpose2d_i8.default
_PAD = _planish.pad_i8.default


def dtype_name(dtype: torch.dtype) -> str:
    """Return NumPy's name of a torch dtype: "float32"."""
    return str(dtype).removeprefix("torch.")


def is_bytes(node: torch.fx.Node) -> bool:
    """Whether a node's value is a uint8 or int8 tensor."""
    return getattr(node.meta.get("val"), "dtype", None) in _BYTES


def is_movement(node: torch.fx.Node) -> bool:
    """Whether a node moves quantized values."""
    return node.target in MOVEMENTS and is_bytes(node)


def is_integer(node: torch.fx.Node) -> bool:
    """Whether a node runs as an integer kernel."""
    return node.op == "call_function" and (node.target in OPERATORS or is_movement(node))


def is_float(node: torch.fx.Node) -> bool:
    """Whether a node is computed by a float kernel."""
    return (
        node.op == "call_function"
        and isinstance(node.meta.get("val"), torch.Tensor | tuple | list)
        and not is_integer(node)
    )


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
        self.rows = find_rows(graph, self.fusion, MOVEMENTS)
        self._other_form: dict[tuple[Value, str], Value] = {}
        self._halos: dict[Value, tuple[Halo, int]] = {}

    def shape(self, node: torch.fx.Node) -> tuple[int, ...]:
        """Return a node's sizes, all known."""
        return tuple(int(size) for size in node.meta["val"].shape)

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
        if dtype not in _BYTES:
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
            halo, zero_point = self._wanted_halo(last)
            compact = node.target is _planish.quantize.default and all(
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

    def _wanted_halo(self, node: torch.fx.Node) -> tuple[Halo, int]:
        """Return the border that the convolutions that read a node need, and what it holds.

        A pad is a border as well; what reads it then reads a view of this node's memory.
        """
        from .lower.transposed import reached_border

        shift = 128 if node.meta["val"].dtype == torch.int8 else 0
        wanted: list[tuple[Halo, int]] = []
        for user in node.users:
            values = arguments(user) if user.op == "call_function" else {}
            if values.get("x") is not node:
                continue
            if user.target in _CONVOLUTIONS:
                wanted.append((reached_halo(self, user), values["x_zero_point"] + shift))
            elif user.target is _TRANSPOSED:
                wanted.append((reached_border(self, user), values["x_zero_point"] + shift))
            elif user.target is _PAD:
                sides = padded_sides(values["pad"], 4) or NO_HALO
                wanted.append((sides, int(values["value"]) + shift))
        wanted = [(halo, zero) for halo, zero in wanted if halo != NO_HALO]
        if not wanted:
            return NO_HALO, 0
        zero_point = wanted[0][1]
        halos = [halo for halo, zero in wanted if zero == zero_point]
        top, left, bottom, right = (max(sides) for sides in zip(*halos, strict=True))
        return (top, left, bottom, right), zero_point

    def border(self, value: Value) -> tuple[Halo, int]:
        """Return the border that a value has, and what it holds."""
        return self._halos.get(value, (NO_HALO, 0))

    def fill_halo(self, value: Value, zero_point: int) -> None:
        """Write a value's border."""
        from .lower.movement import fill_halo

        fill_halo(self, value, zero_point)

    def _fill_once(self, value: Value, zero_point: int) -> None:
        """Write the border of a new value: at each call, but once on a GPU.

        There a launch costs more than memory, and no kernel writes outside of what it computes.
        """
        from .lower.movement import fill_halo

        value.kept = self.plan.target.capability is not None
        fill_halo(self, value, zero_point, once=value.kept)

    def strided(self, node: torch.fx.Node) -> Value:
        """Return a node's value in the integer region, its axes in any order and distance."""
        value = self.value(node)
        return self._kept((value, "strided"), lambda: self._packed(node)) if value.dense else value

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
        from .lower.boundary import unpack

        value = self.value(node)
        return value if value.dense else self._kept((value, "dense"), lambda: unpack(self, node))

    def _kept(self, key: tuple[Value, str], make: Callable[[], Value]) -> Value:
        if key not in self._other_form:
            self._other_form[key] = make()
        return self._other_form[key]

    def _packed(self, node: torch.fx.Node) -> Value:
        from .lower.boundary import pack

        return pack(self, node)

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
        from .lower.movement import copy_into

        make = vector_layout if form == "vector" else row_layout
        copy = Value(
            f"{value.name}_{form}", make(value.layout.shape, value.layout.dtype), shift=value.shift
        )
        copy_into(self, value, copy, value.name)
        seen = see(copy.layout)
        assert seen is not None
        return copy if seen == copy.layout else copy.view(copy.name, seen)

    def padded(self, node: torch.fx.Node, halo: Halo, zero_point: int) -> Value:
        """Return a node's integer value with at least this border, holding this value."""
        from .lower.movement import copy_into

        if halo == NO_HALO:
            return self.integer(node)
        value = self.strided(node)
        have, filled = self._halos.get(value, (NO_HALO, zero_point))
        if filled == zero_point and all(h >= w for h, w in zip(have, halo, strict=True)):
            return value
        layout = vector_layout(value.layout.shape, value.layout.dtype, halo)
        wider = Value(f"{value.name}_padded", layout, shift=value.shift)
        self._fill_once(wider, zero_point)
        copy_into(self, value, wider, self.label(node))
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


def padded_sides(pad: list[int], axes: int) -> Halo | None:
    """Return (top, left, bottom, right) of a pad as torch spells it, if it only widens images."""
    sides = [*map(int, pad), *[0] * (2 * axes - len(pad))]
    if axes != 4 or min(sides) < 0 or any(sides[4:]):
        return None
    return sides[2], sides[0], sides[3], sides[1]


def reached_halo(lowering: Lowering, node: torch.fx.Node) -> Halo:
    """Return how far the windows of a convolution reach over the image's edges."""
    values = arguments(node)
    height, width = lowering.shape(values["x"])[2:]
    out_height, out_width = lowering.shape(node)[2:]
    kernel_height, kernel_width = lowering.shape(values["weight"])[2:]
    top, left, _, _ = values["padding"]
    stride, dilation = values["stride"], values["dilation"]
    bottom = (out_height - 1) * stride[0] + (kernel_height - 1) * dilation[0] + 1 - top - height
    right = (out_width - 1) * stride[1] + (kernel_width - 1) * dilation[1] + 1 - left - width
    return top, left, max(bottom, 0), max(right, 0)

"""lower-to-integer: what was simulated becomes the integer graph that backends start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.history import Refused
from planish.ir.integer import requantize_multiplier
from planish.ir.level import Level, Numerics
from planish.ir.ops import Quantization, activations, arguments, quantization, row, stored
from planish.ir.origin import get_origin

from .base import Pass, PassResult
from .context import Context
from .integer_emission import Emission, Operand, emit, quantized_bounds
from .integer_patterns import (
    Kind,
    Pattern,
    Patterns,
    fake_quantize,
    integer_patterns,
    is_weight_quantizer,
)
from .observers import QParams
from .quantization_placement import EMITTED

_ops = torch.ops.planish


@dataclass(frozen=True)
class LowerToInteger(Pass):
    """Replace fake-quantized computation by integer operators; the rest becomes float islands.

    Rewrite:
        %xq = fake_quantize(%x); %c = conv2d(%xq, fake_quantize(@w), @b); %r = relu(%c);
        %y = fake_quantize(%r)
        ->  %q = quantize(%x); %y = conv2d_i8(%q, @w (int8), @b (int32), @multiplier, ...)
        with relu as the lower clamp; dequantize where a float operator or an output reads %y.

    Checks:
        An operator whose operands are not all quantized, or that has no integer form, stays in
        float, with its reason. A bias that does not fit int32 is an error. Dropout is dropped.

    Source:
        Jacob et al. 2018, section 2.2 to 2.4; the exact formulas are docs/numeric-contract.md's.
    """

    name: ClassVar[str] = "lower-to-integer"
    requires: ClassVar[tuple[Level, ...]] = (Level.QUANTIZED,)
    ensures: ClassVar[Level | None] = Level.INTEGER
    preserves: ClassVar[Numerics] = Numerics.CHANGES

    def run(self, graph: Graph, context: Context) -> PassResult:
        """Build the integer graph node by node, in execution order."""
        del context
        graph.eval()
        lowering = _Lowering(graph)
        lowered = lowering.run()
        notes = {"integer_operators": lowering.computed, "float_operators": len(lowering.refused)}
        return PassResult(lowered, True, tuple(lowering.refused), notes)


class _Lowering:
    """The new graph under construction, and what each old value has become in it."""

    def __init__(self, graph: Graph) -> None:
        self.old = graph
        self.new = Graph(
            fx.GraphModule(torch.nn.Module(), fx.Graph()),
            Level.INTEGER,
            list(graph.inputs),
            graph.structure,
            list(graph.history),
            dict(graph.annotations),
        )
        self.patterns: Patterns = integer_patterns(graph)
        self.covered = _covered(graph, self.patterns)
        self.floats: dict[fx.Node, fx.Node] = {}
        self.integers: dict[fx.Node, Operand] = {}
        self.refused: list[Refused] = []
        self.computed = 0

    def run(self) -> Graph:
        """Lower every node; return the finished graph."""
        for node in self.old.nodes:
            if node.op == "placeholder":
                new = self.new.fx.placeholder(node.name)
                new.meta["origin"] = get_origin(node)
                self.floats[node] = new
            elif node.op == "call_function" and node not in self.covered:
                self._lower(node)
        self.new.fx.output(tuple(self.as_float(node) for node in self.old.outputs))
        return self.new.prune_dead().infer()

    def _lower(self, node: fx.Node) -> None:
        pattern = self.patterns.by_node.get(node)
        if pattern is not None:
            self.integers[node] = Operand(self._lower_pattern(node, pattern), pattern.qparams)
        elif is_weight_quantizer(node):
            return  # read by the layer that owns it
        elif row(node).name == "dropout":
            self._forward(node, activations(node)[0])
        elif node in self.patterns.quantized:
            self.integers[node] = self._move(node, self.patterns.quantized[node])
        else:
            self._keep_float(node)

    def _forward(self, node: fx.Node, source: fx.Node) -> None:
        """Let a dropped node stand for what it read."""
        if source in self.integers:
            self.integers[node] = self.integers[source]
        if source in self.floats:
            self.floats[node] = self.floats[source]

    def _lower_pattern(self, node: fx.Node, pattern: Pattern) -> fx.Node:
        q = pattern.qparams
        if pattern.kind is Kind.COMPUTE:
            operands = tuple(self.integers[source] for source in activations(pattern.source))
            self.computed += 1
            return emit(Emission(self.old, self.new, pattern.source, operands, pattern))
        if pattern.kind is Kind.QUANTIZE:
            value = self.as_float(pattern.source)
            args = (value, q.scale, q.zero_point, q.lo, q.hi, q.dtype)
            return self._call(node, _ops.quantize.default, args)
        operand = self.integers[pattern.source]
        if pattern.kind is Kind.SAME:
            return operand.node
        low, high = quantized_bounds(pattern)
        if pattern.kind is Kind.CLAMP:
            return self._call(node, _ops.clamp_i8.default, (operand.node, low, high))
        factor = float(requantize_multiplier(operand.qparams.scale, 1.0, q.scale))
        ending = (operand.qparams.zero_point, q.zero_point, low, high, q.dtype)
        return self._call(node, _ops.requantize_i8.default, (operand.node, factor, *ending))

    def _move(self, node: fx.Node, qparams: QParams) -> Operand:
        """Lower an operator that only moves values: it runs on the integers as it is."""
        if row(node).name == "max_pool2d":
            return Operand(self._max_pool(node), qparams)
        moved = self.new.fx.node_copy(node, self._integer_argument)
        moved.meta = {"origin": get_origin(node)}
        return Operand(moved, qparams)

    def _integer_argument(self, node: fx.Node) -> fx.Node:
        return self.integers[node].node if node in self.integers else self.as_float(node)

    def _max_pool(self, node: fx.Node) -> fx.Node:
        values = arguments(node)
        vertical, horizontal = values["padding"]
        padding = [vertical, horizontal, vertical, horizontal]
        args = (
            *(self.integers[values["self"]].node, values["kernel_size"], values["stride"]),
            *(padding, values["dilation"], values["ceil_mode"]),
        )
        return self._call(node, _ops.max_pool2d_i8.default, args)

    def _keep_float(self, node: fx.Node) -> None:
        """Copy an operator into a float island, and say why."""
        copied = self.new.fx.node_copy(node, self.as_float)
        copied.meta = {"origin": get_origin(node)}
        self.floats[node] = copied
        if isinstance(node.meta["val"], torch.Tensor):
            self.refused.append(Refused(get_origin(node).name, _reason(node)))

    def as_float(self, node: fx.Node) -> fx.Node:
        """Return an old node's value in float in the new graph, dequantized on first use."""
        if node not in self.floats:
            if node.op == "get_attr":
                self.floats[node] = self._stored(str(node.target))
            elif is_weight_quantizer(node):
                self.floats[node] = self._float_weight(node)
            else:
                operand = self.integers[node]
                args = (operand.node, operand.qparams.scale, operand.qparams.zero_point)
                self.floats[node] = self._call(node, _ops.dequantize.default, args)
        return self.floats[node]

    def _stored(self, name: str) -> fx.Node:
        if name not in self.new.attributes:
            value = self.old.attribute(name)
            self.new.set_attribute(name, value, trainable=value.requires_grad)
        return self.new.fx.get_attr(name)

    def _float_weight(self, node: fx.Node) -> fx.Node:
        """A fake-quantized weight that a float operator reads: its simulated values."""
        values = arguments(node)
        x, scale, zero_point = (
            self.old.attribute(str(values[role].target)) for role in ("x", "scale", "zero_point")
        )
        rest = (values["axis"], values["lo"], values["hi"])
        simulated = fake_quantize(x.detach(), scale, zero_point, *rest)
        return self.new.fx.get_attr(self.new.new_attribute(str(values["x"].target), simulated))

    def _call(self, node: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
        new = self.new.fx.create_node("call_function", target, args, name=node.name)
        new.meta["origin"] = get_origin(node)
        return new


def _covered(graph: Graph, patterns: Patterns) -> set[fx.Node]:
    """Nodes that patterns replace and that nothing outside them reads."""
    inside = {node for pattern in patterns.by_node.values() for node in pattern.covered}
    covered: set[fx.Node] = set()
    for node in reversed(graph.calls):
        if node in inside and all(
            user in covered or node in _reach(patterns, user) for user in node.users
        ):
            covered.add(node)
    return covered


def _reach(patterns: Patterns, user: fx.Node) -> tuple[fx.Node, ...]:
    pattern = patterns.by_node.get(user)
    return pattern.covered if pattern is not None else ()


def _reason(node: fx.Node) -> str:
    name = row(node).name
    kind = quantization(node)
    if kind is Quantization.FLOAT or (kind is Quantization.INTEGER and name not in EMITTED):
        return f"{name} has no integer form"
    if any(stored(source) for source in activations(node)):
        return f"{name} of a constant has no integer form"
    return f"{name} reads or makes a value that is not quantized"

"""lower-to-integer: what was simulated becomes the integer graph that backends start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.history import Refused
from planish.ir.integer import quantize
from planish.ir.level import Level, Numerics
from planish.ir.ops import activations, arguments, is_entrance, row
from planish.ir.origin import get_origin

from .base import Pass, PassResult
from .context import Context
from .lowering.emission import Emission, NoIntegerForm, Operand, quantized_bounds
from .lowering.emit_elementwise import table
from .lowering.emitters import REAL, emit, mover
from .lowering.hoist_quantizers import hoist_quantizers
from .lowering.integer_patterns import (
    Kind,
    Pattern,
    Patterns,
    computes,
    fake_quantize,
    integer_patterns,
    is_stored_quantizer,
)
from .lowering.wide_quantizers import real_fake_quantize
from .parameters.fold_stored import fold_stored
from .quantization.observers import QParams
from .quantization.obstacles import obstacle

_ops = torch.ops.planish


@dataclass(frozen=True)
class LowerToInteger(Pass):
    """Replace fake-quantized computation by integer operators; the rest becomes float islands.

    Rewrite:
        %xq = fake_quantize(%x); %c = conv2d(%xq, fake_quantize(@w), @b); %r = relu(%c);
        %y = fake_quantize(%r)
        ->  %q = quantize(%x); %y = conv2d_i8(%q, @w (int8), @b (int32), @multiplier, ...)
        with relu as the lower clamp; dequantize where a float operator or an output reads %y.
        Where nobody quantizes %c: conv2d_dq, integer sums with a real result.
        A stored tensor that is quantized, or made of stored ones, becomes stored integers.

    Checks:
        An operator whose operands are not all quantized, or that has no integer form, or whose
        constants the integer arithmetic can't hold, stays in float, with its reason; so does what
        is quantized to more than 8 bits, or along an axis. Dropout is dropped.

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
        hoist_quantizers(graph)
        lowering = _Lowering(graph)
        lowered = lowering.run()
        refused = lowering.refused
        notes = {"integer_operators": lowering.computed, "float_operators": len(refused)}
        return PassResult(lowered, True, refused, notes)


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
            graph.output_names,
        )
        self.patterns: Patterns = integer_patterns(graph)
        self.covered = _covered(graph, self.patterns)
        self._read_in_float()
        self.floats: dict[fx.Node, fx.Node] = {}
        self.integers: dict[fx.Node, Operand] = {}
        self.reasons: dict[fx.Node, str] = {}  # of nodes in the new graph
        self.names: dict[str, str] = {}  # of stored tensors that stay in float
        self.computed = 0

    def _read_in_float(self) -> None:
        """Let a product that is also read in float run once, with a real result."""
        for node, pattern in self.patterns.by_node.items():
            twice = pattern.kind is Kind.COMPUTE and pattern.source not in self.covered
            if twice and row(pattern.source).name in REAL:
                value = arguments(node)["x"]
                self.patterns.by_node[node] = Pattern(Kind.QUANTIZE, pattern.qparams, value)
        self.covered = _covered(self.old, self.patterns)

    @property
    def refused(self) -> tuple[Refused, ...]:
        """What computes in float in the finished graph, with reasons."""
        left = set(self.new.calls)
        return tuple(
            Refused(get_origin(node).name, reason)
            for node, reason in self.reasons.items()
            if node in left and node.meta["val"].dtype.is_floating_point
        )

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
        self.new.prune_dead().infer()
        fold_stored(self.new)
        return self.new

    def _lower(self, node: fx.Node) -> None:
        pattern = self.patterns.by_node.get(node)
        if pattern is not None:
            self.integers[node] = Operand(self._lower_pattern(node, pattern), pattern.qparams)
        elif is_stored_quantizer(node):
            return  # read by the operator that owns it
        elif row(node).name == "dropout":
            self._forward(node, activations(node)[0])
        elif node in self.patterns.quantized:
            self.integers[node] = self._move(node, self.patterns.quantized[node])
        elif node.target is fake_quantize:
            self._keep_wide(node)
        else:
            self._keep_float(node)

    def _forward(self, node: fx.Node, source: fx.Node) -> None:
        """Let a dropped node stand for what it read."""
        if source in self.patterns.quantized:
            self.integers[node] = self.operand(source)
        else:
            self.floats[node] = self.as_float(source)

    def _lower_pattern(self, node: fx.Node, pattern: Pattern) -> fx.Node:
        q = pattern.qparams
        if pattern.kind is Kind.QUANTIZE:
            return self._quantize(node, self.as_float(pattern.source), q)
        if pattern.kind is Kind.COMPUTE:
            return self._compute(node, pattern)
        operand = self.operand(pattern.source)
        if pattern.kind is Kind.SAME:
            return operand.node
        if pattern.kind is Kind.CLAMP:
            low, high = quantized_bounds(q, pattern.bounds)
            return self._call(node, _ops.clamp_i8.default, (operand.node, low, high))
        self.computed += 1
        named = pattern.covered[-1] if pattern.covered else node
        emission = Emission(self.old, self.new, named, (operand,), q)
        return table(emission, pattern.source, pattern.covered)

    def _compute(self, node: fx.Node, pattern: Pattern) -> fx.Node:
        """Emit an integer operator; where its constants don't fit, keep it in float."""
        operands = tuple(self.operand(source) for source in activations(pattern.source))
        output = (pattern.qparams, pattern.bounds)
        try:
            new = emit(Emission(self.old, self.new, pattern.source, operands, *output))
        except NoIntegerForm as reason:
            for covered in pattern.covered:
                if covered not in self.floats:
                    self._keep_float(covered, str(reason))
            return self._quantize(node, self.as_float(arguments(node)["x"]), pattern.qparams)
        self.computed += 1
        return new

    def _quantize(self, node: fx.Node, value: fx.Node, q: QParams) -> fx.Node:
        args = (value, q.scale, q.zero_point, q.lo, q.hi, q.dtype)
        return self._call(node, _ops.quantize.default, args)

    def _move(self, node: fx.Node, qparams: QParams) -> Operand:
        """Lower an operator that only moves values: it runs on the integers as it is."""
        special = mover(node)
        if special is not None:
            operands = tuple(self.operand(source) for source in activations(node))
            return Operand(special(Emission(self.old, self.new, node, operands, qparams)), qparams)
        moved = self.new.fx.node_copy(node, self._integer_argument)
        moved.meta = {"origin": get_origin(node)}
        return Operand(moved, qparams)

    def _integer_argument(self, node: fx.Node) -> fx.Node:
        quantized = node in self.patterns.quantized or node in self.integers
        return self.operand(node).node if quantized else self.as_float(node)

    def operand(self, node: fx.Node) -> Operand:
        """Return an old node's value in integers; a stored one is quantized on first use."""
        if node not in self.integers:
            assert is_stored_quantizer(node), node
            q = self.patterns.quantized[node]
            name = str(arguments(node)["x"].target)
            real = self.old.attribute(name).detach()
            integers = quantize(real, q.scale, q.zero_point, q.lo, q.hi).to(q.dtype)
            stored = self.new.fx.get_attr(self.new.new_attribute(name, integers))
            self.integers[node] = Operand(stored, q)
        return self.integers[node]

    def _keep_float(self, node: fx.Node, reason: str | None = None) -> None:
        """Copy an operator into a float island, and say why; a product still sums in integers."""
        if reason is None and row(node).name in REAL and computes(node, self.patterns):
            operands = tuple(self.operand(source) for source in activations(node))
            try:
                self.floats[node] = emit(Emission(self.old, self.new, node, operands))
            except NoIntegerForm as found:
                reason = str(found)
            else:
                self.computed += 1
                return
        reads = self._sized if row(node).name == "sym_size" else self.as_float
        copied = self.new.fx.node_copy(node, reads)
        copied.meta = {"origin": get_origin(node)}
        self.floats[node] = copied
        if isinstance(node.meta["val"], torch.Tensor) and not is_entrance(node):
            self.reasons[copied] = reason or self._reason(node)

    def _sized(self, node: fx.Node) -> fx.Node:
        """A size is read off the integers where there are any: nothing is dequantized for it."""
        return self.integers[node].node if node in self.integers else self.as_float(node)

    def _keep_wide(self, node: fx.Node) -> None:
        """A fake-quantize that no byte holds: its formula, in float."""
        values = arguments(node)
        constants = [self.old.attribute(str(values[k].target)) for k in ("scale", "zero_point")]
        self.floats[node] = real_fake_quantize(
            self.new, node, self.as_float(values["x"]), *constants
        )
        how = "to more than 8 bits" if values["axis"] is None else "along an axis"
        self.reasons[self.floats[node]] = f"its activation is quantized {how}"

    def _reason(self, node: fx.Node) -> str:
        found = obstacle(node)
        if found is not None:
            return found
        for source in activations(node):
            if source not in self.patterns.quantized:
                return f"it reads {get_origin(source).name}, which is not quantized"
        return "its result is not quantized"

    def as_float(self, node: fx.Node) -> fx.Node:
        """Return an old node's value in float in the new graph, dequantized on first use."""
        if node not in self.floats:
            if node.op == "get_attr":
                self.floats[node] = self._stored(str(node.target))
            elif is_stored_quantizer(node):
                self.floats[node] = self._simulated(node)
            else:
                operand = self.integers[node]
                args = (operand.node, operand.qparams.scale, operand.qparams.zero_point)
                self.floats[node] = self._call(node, _ops.dequantize.default, args)
        return self.floats[node]

    def _stored(self, name: str) -> fx.Node:
        if name not in self.names:
            value = self.old.attribute(name)
            self.names[name] = self.new.new_attribute(name, value, trainable=value.requires_grad)
        return self.new.fx.get_attr(self.names[name])

    def _simulated(self, node: fx.Node) -> fx.Node:
        """A fake-quantized stored tensor that a float operator reads: its simulated values."""
        value = Emission(self.old, self.new, node, ()).constant(node)
        assert value is not None
        name = str(arguments(node)["x"].target)
        return self.new.fx.get_attr(self.new.new_attribute(name, value))

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

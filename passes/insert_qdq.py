"""insert-qdq: fake-quantize nodes where integer kernels will quantize, with calibrated scales."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import fx

from planish.ir.errors import PassError, unknown
from planish.ir.graph import Graph
from planish.ir.level import Level, Numerics
from planish.ir.ops import activations, arguments, row, set_argument
from planish.ir.origin import get_origin

from .base import Pass, PassResult, check_option, check_types
from .context import Context
from .parameters.fold_parameters import fold_parameters
from .parameters.weights import has_weight, weight_axis
from .quantization.exact_scales import exact_additions, proportional_scales, round_bias
from .quantization.masked_ranges import masked_ranges
from .quantization.observers import OBSERVERS, Histogram, QParams, choose_qparams, weight_scales
from .quantization.quantization_placement import Placement, quantization_placement

_fake_quantize = torch.ops.planish.fake_quantize.default
_RANGES = {"uint8": (0, 255), "int8": (-128, 127)}


@dataclass(frozen=True)
class InsertQDQ(Pass):
    """Calibrate activations and insert quantize/dequantize pairs as fake-quantize nodes.

    Options:
        observer: Range of activations and weights: "min-max", "percentile" or "mse".
        percentile: Share of the values that "percentile" covers, in per cent.
        per_channel: One weight scale an output channel; False gives one a tensor.
        activation_dtype: "uint8" or "int8"; None takes the target's (uint8 without a target).
        symmetric: Zero point in the middle of the activations' range.
        batches: How many batches of the data to calibrate on.
        skip: Layers to leave in float, by origin name or pattern ("head.*").

    Rewrite:
        %c = conv2d(%x, @w, ...); %r = relu(%c)
        ->  %xq = fake_quantize(%x, ...); %wq = fake_quantize(@w, ..., axis=0)
            %c = conv2d(%xq, %wq, ...); %r = relu(%c); %rq = fake_quantize(%r, ...)

    Checks:
        Scales of additions and biases are moved to the nearest values that the integer operators
        represent exactly (`exact_scales`), so that what is simulated here is what will run.
        Masks before a softmax do not widen the range of the scores (`masked_ranges`).
        Operators without an integer form stay in float, each with its reason. A layer name that
        matches nothing is an error; so is calibration data with NaN, infinity or no batches, and a
        graph that is quantized already.

    Source:
        Jacob et al. 2018, sections 2 and 3; Krishnamoorthi 2018, section 3.1.
    """

    observer: str = "min-max"
    percentile: float = 99.99
    per_channel: bool = True
    activation_dtype: str | None = None
    symmetric: bool = False
    batches: int = 16
    skip: tuple[str, ...] = ()

    name: ClassVar[str] = "insert-qdq"
    requires: ClassVar[tuple[Level, ...]] = (Level.CANONICAL,)
    ensures: ClassVar[Level | None] = Level.QUANTIZED
    preserves: ClassVar[Numerics] = Numerics.CHANGES
    needs_data: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the options."""
        check_types(self)
        if self.observer not in OBSERVERS:
            raise unknown("observer", self.observer, OBSERVERS)
        if self.activation_dtype is not None and self.activation_dtype not in _RANGES:
            raise unknown("activation dtype", self.activation_dtype, _RANGES)
        check_option(
            50.0 < self.percentile <= 100.0, "percentile must be above 50, at most 100", self.name
        )
        check_option(self.batches >= 1, "batches must be at least 1", self.name)

    def run(self, graph: Graph, context: Context) -> PassResult:
        """Place, observe, insert."""
        if any(node.target is _fake_quantize for node in graph.calls):
            raise PassError(
                "the graph is quantized already",
                where=self.name,
                cure="lower it as it is, or start from the float model",
            )
        graph.eval()
        fold_parameters(graph)
        placement = quantization_placement(graph, self._skipped(graph))
        histograms = self._observe(graph, placement, context)
        limits = _RANGES[self._dtype(context)]
        masked = masked_ranges(graph, placement, histograms)
        ranges = {**self._ranges(placement, histograms), **masked}
        chosen = {leader: self._qparams(leader, ranges[leader], *limits) for leader in histograms}
        chosen = proportional_scales(graph, placement, chosen, masked)
        chosen = exact_additions(graph, placement, chosen)
        _insert_activations(graph, placement, chosen)
        for layer in placement.weights:
            self._insert_weight(graph, layer)
        graph.level = Level.QUANTIZED
        graph.infer()
        notes = {
            "quantized_values": len(placement.points),
            "scales": {get_origin(n).name: [q.scale, q.zero_point] for n, q in chosen.items()},
        }
        return PassResult(graph, True, tuple(placement.refused), notes)

    def _dtype(self, context: Context) -> str:
        if self.activation_dtype is not None:
            return self.activation_dtype
        return context.target.activation_dtype if context.target is not None else "uint8"

    def _skipped(self, graph: Graph) -> Any:
        names = {get_origin(node).name for node in graph.calls}
        for pattern in self.skip:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                raise unknown("layer in insert-qdq's skip", pattern, names)
        return lambda node: any(
            fnmatch.fnmatchcase(get_origin(node).name, pattern) for pattern in self.skip
        )

    def _observe(
        self, graph: Graph, placement: Placement, context: Context
    ) -> dict[fx.Node, Histogram]:
        """Run the calibration batches; return one histogram a scale group."""
        observed = (*placement.points, *placement.watched)
        leaders = {node: placement.representative(node) for node in observed}
        histograms = {leader: Histogram() for leader in leaders.values()}
        interpreter = _Observing(graph, {n: histograms[leader] for n, leader in leaders.items()})
        stream = islice(context.batches(graph, self.name), self.batches)
        with torch.no_grad():
            for batch in context.progress.track(stream, "calibrating", self.batches):
                interpreter.run(*(tensor.to(context.device) for tensor in batch.inputs))
        return histograms

    def _ranges(
        self, placement: Placement, histograms: dict[fx.Node, Histogram]
    ) -> dict[fx.Node, tuple[float, float]]:
        """Return the range of each scale group; of stored tensors alone, all of it."""
        moving = {placement.representative(p) for p in placement.points if _moves(p, placement)}
        ranges = {}
        for leader, histogram in histograms.items():
            observer = self.observer if leader in moving else "min-max"
            ranges[leader] = OBSERVERS[observer](histogram, self.percentile)
        return ranges

    def _qparams(self, node: fx.Node, found: tuple[float, float], lo: int, hi: int) -> QParams:
        low, high = found
        if not (low <= high and abs(low) < float("inf") and abs(high) < float("inf")):
            raise PassError(
                f"calibration gave values that are not finite in {get_origin(node).name}",
                where=self.name,
                cure="look for overflow in the model at that layer",
            )
        return choose_qparams(low, high, lo, hi, symmetric=self.symmetric)

    def _insert_weight(self, graph: Graph, layer: fx.Node) -> None:
        values = arguments(layer)
        weight_node: fx.Node = values["weight"]
        if weight_node.target is _fake_quantize:
            return  # shared with a layer that was handled before
        weight = graph.attribute(str(weight_node.target))
        axis = weight_axis(row(layer).name)
        by_channel = weight.transpose(0, axis)
        scales = weight_scales(by_channel, self.observer, per_channel=self.per_channel)
        source = _quantized_source(values["input"])
        if source is not None:
            x_scale = float(graph.attribute(str(arguments(source)["scale"].target)))
            scales = round_bias(graph, layer, x_scale, scales)
        zero_points = torch.zeros_like(scales, dtype=torch.int32)
        prefix = str(weight_node.target)
        first = min(weight_node.users, key=list(graph.fx.nodes).index)
        with graph.fx.inserting_before(first):
            # A node of its own, beside the first reader, so that the text reads in order.
            operands = (
                graph.fx.get_attr(graph.new_attribute(f"{prefix}_scale", scales)),
                graph.fx.get_attr(graph.new_attribute(f"{prefix}_zero_point", zero_points)),
            )
            quantized = graph.fx.create_node(
                "call_function",
                _fake_quantize,
                (weight_node, *operands, axis if self.per_channel else None, -127, 127),
                name=f"{layer.name}_weight_q",
            )
        quantized.meta["origin"] = get_origin(layer)
        for reader in list(weight_node.users):
            if _shares_weight(reader, layer, weight_node):
                set_argument(reader, "weight", quantized)


def _moves(point: fx.Node, placement: Placement) -> bool:
    """Whether a value depends on the input."""
    return point.op != "get_attr" and point not in placement.stored


def _shares_weight(reader: fx.Node, layer: fx.Node, weight: fx.Node) -> bool:
    """Whether a reader of a weight is a layer with output channels along the same axis."""
    if reader.target is _fake_quantize or not has_weight(reader):
        return False
    same_axis = weight_axis(row(reader).name) == weight_axis(row(layer).name)
    return same_axis and arguments(reader)["weight"] is weight


def _quantized_source(node: fx.Node) -> fx.Node | None:
    """Follow operators that keep the scale back to the fake-quantize that set it."""
    while node.target is not _fake_quantize:
        if node.op != "call_function":
            return None
        node = activations(node)[0]
    return node


class _Observing(fx.Interpreter):
    """Runs a graph and shows the values of some nodes to their histograms."""

    def __init__(self, graph: Graph, observers: dict[fx.Node, Histogram]) -> None:
        super().__init__(graph.module)
        self.observers = observers

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; observe its value."""
        value = super().run_node(n)
        if n in self.observers:
            self.observers[n].observe(value)
        return value


def _insert_activations(graph: Graph, placement: Placement, chosen: dict[fx.Node, QParams]) -> None:
    names: dict[fx.Node, tuple[str, str]] = {}
    for point in placement.points:
        leader = placement.representative(point)
        qparams = chosen[leader]
        if leader not in names:
            names[leader] = _store_qparams(graph, point, qparams)
        readers = placement.readers.get(point, list(point.users))
        with graph.fx.inserting_after(point):
            scale = graph.fx.get_attr(names[leader][0])
        with graph.fx.inserting_after(scale):
            zero_point = graph.fx.get_attr(names[leader][1])
        with graph.fx.inserting_after(zero_point):
            new = graph.fx.create_node(
                "call_function",
                _fake_quantize,
                (point, scale, zero_point, None, qparams.lo, qparams.hi),
                name=f"{point.name}_q",
            )
        new.meta["origin"] = get_origin(point)
        for reader in readers:
            reader.replace_input_with(point, new)


def _store_qparams(graph: Graph, point: fx.Node, qparams: QParams) -> tuple[str, str]:
    prefix = f"quantization.{get_origin(point).name}"
    scale = torch.tensor(qparams.scale, dtype=torch.float32)
    zero_point = torch.tensor(qparams.zero_point, dtype=torch.int32)
    return (
        graph.new_attribute(f"{prefix}.scale", scale),
        graph.new_attribute(f"{prefix}.zero_point", zero_point),
    )

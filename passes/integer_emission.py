"""Emits integer operators: one function an operator, from float arguments and quantization."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from planish.ir.errors import PassError
from planish.ir.graph import Graph
from planish.ir.integer import dequantize, fixed_point_add, quantize, requantize_multiplier
from planish.ir.integer.pooling import adaptive_windows, pooled_size
from planish.ir.ops import Quantization, arguments, quantization, row
from planish.ir.origin import get_origin

from .integer_patterns import Pattern
from .observers import QParams

_ops = torch.ops.planish
_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Operand:
    """A value on the integer level: its node in the new graph, and its parameters."""

    node: fx.Node
    qparams: QParams


@dataclass(frozen=True)
class Emission:
    """What an emitter needs.

    Attributes:
        old: The quantized graph.
        new: The integer graph under construction.
        node: The float operator, in the old graph.
        operands: Its activations, in the new graph.
        pattern: The result's parameters and fused bounds.
    """

    old: Graph
    new: Graph
    node: fx.Node
    operands: tuple[Operand, ...]
    pattern: Pattern

    @property
    def bounds(self) -> tuple[int, int]:
        """The clamp in the quantized domain: the fused real bounds, quantized."""
        return quantized_bounds(self.pattern)

    def tensor(self, name: str, value: torch.Tensor) -> fx.Node:
        """Store a tensor in the new graph and read it; an equal one of that name is shared."""
        known = self.new.attributes.get(name)
        if known is not None and known.dtype == value.dtype and torch.equal(known, value):
            return self.new.fx.get_attr(name)
        return self.new.fx.get_attr(self.new.new_attribute(name, value))

    def call(self, target: Any, *args: Any) -> fx.Node:
        """Add a call with the operator's origin."""
        new = self.new.fx.create_node("call_function", target, args, name=self.node.name)
        new.meta["origin"] = get_origin(self.node)
        return new


def quantized_bounds(pattern: Pattern) -> tuple[int, int]:
    """Return the pattern's clamp in the quantized domain."""
    q = pattern.qparams

    def bound(real: float, otherwise: int) -> int:
        if math.isinf(real):
            return otherwise
        return int(quantize(torch.tensor(real), q.scale, q.zero_point, q.lo, q.hi))

    return bound(pattern.bounds[0], q.lo), bound(pattern.bounds[1], q.hi)


def emit(emission: Emission) -> fx.Node:
    """Emit the integer form of one operator."""
    if quantization(emission.node) is Quantization.TABLE:
        return _table(emission)
    return _EMITTERS[row(emission.node).name](emission)


def _weight(emission: Emission) -> tuple[fx.Node, fx.Node | None, fx.Node]:
    """Quantize weight and bias; return the nodes of weight, bias and multiplier."""
    values = arguments(emission.node)
    quantizer = arguments(values["weight"])
    weight_name = str(quantizer["x"].target)
    weight = emission.old.attribute(weight_name).detach()
    scale = emission.old.attribute(str(quantizer["scale"].target)).detach()
    per_output = scale.expand(weight.shape[0]).contiguous()
    spread = per_output.view(-1, *[1] * (weight.dim() - 1))
    integers = quantize(weight, spread, 0, quantizer["lo"], quantizer["hi"]).to(torch.int8)
    x, y = emission.operands[0].qparams, emission.pattern.qparams
    multiplier = requantize_multiplier(x.scale, per_output, y.scale)
    bias = _bias(emission, values["bias"], x.scale, per_output)
    prefix = weight_name.removesuffix("weight")
    return (
        emission.tensor(weight_name, integers),
        None if bias is None else emission.tensor(f"{prefix}bias", bias),
        emission.tensor(f"{prefix}multiplier", multiplier),
    )


def _bias(
    emission: Emission, node: fx.Node | None, x_scale: float, weight_scale: torch.Tensor
) -> torch.Tensor | None:
    """Return int32 `rne(bias / (sx * sw))`."""
    if node is None:
        return None
    real = emission.old.attribute(str(node.target)).detach().double()
    exact = torch.round(real / (x_scale * weight_scale.double()))
    if bool((exact.abs() > _INT32).any()):
        raise PassError(
            "a bias does not fit int32 at the scale of its input and weight",
            where=str(get_origin(emission.node)),
            cure="calibrate with a wider weight scale (observer='min-max')",
        )
    return exact.to(torch.int32)


def _conv2d(e: Emission) -> fx.Node:
    values = arguments(e.node)
    weight, bias, multiplier = _weight(e)
    vertical, horizontal = values["padding"]
    return e.call(
        _ops.conv2d_i8.default,
        *(e.operands[0].node, weight, bias, multiplier),
        *(values["stride"], [vertical, horizontal, vertical, horizontal]),
        *(values["dilation"], values["groups"]),
        *_ending(e, e.operands[0].qparams.zero_point),
    )


def _linear(e: Emission) -> fx.Node:
    weight, bias, multiplier = _weight(e)
    return e.call(
        _ops.linear_i8.default,
        *(e.operands[0].node, weight, bias, multiplier),
        *_ending(e, e.operands[0].qparams.zero_point),
    )


def _ending(e: Emission, *x_zero_points: int) -> tuple[Any, ...]:
    """The arguments that end every requantizing operator: zero points, clamp, dtype."""
    q = e.pattern.qparams
    return (*x_zero_points, q.zero_point, *e.bounds, q.dtype)


def _add(e: Emission) -> fx.Node:
    a, b = e.operands
    y = e.pattern.qparams
    multipliers = fixed_point_add(a.qparams.scale, b.qparams.scale, y.scale)
    return e.call(
        _ops.add_i8.default,
        *(a.node, b.node, a.qparams.zero_point, b.qparams.zero_point, *multipliers),
        *_ending(e),
    )


def _avg_pool2d(e: Emission) -> fx.Node:
    values = arguments(e.node)
    vertical, horizontal = values["padding"]
    padding = [vertical, horizontal, vertical, horizontal]
    _, _, height, width = e.old.shape(values["self"])
    assert height is not None
    assert width is not None
    counts = _window_counts(values, (height, width))
    multiplier = e.tensor(f"{get_origin(e.node).name}.multiplier", _mean_multiplier(e, counts))
    return e.call(
        _ops.avg_pool2d_i8.default,
        *(e.operands[0].node, multiplier, values["kernel_size"], values["stride"], padding),
        values["ceil_mode"],
        *_ending(e, e.operands[0].qparams.zero_point),
    )


def _window_counts(values: dict[str, Any], sizes: tuple[int, int]) -> torch.Tensor:
    """Return torch's divisor of each window of avg_pool2d: float64 [oh, ow]."""
    spans = [_spans(values, axis, sizes[axis]) for axis in range(2)]
    if values["divisor_override"] is not None:
        return torch.full(
            (len(spans[0]), len(spans[1])), values["divisor_override"], dtype=torch.float64
        )
    rows, columns = (torch.tensor(span, dtype=torch.float64) for span in spans)
    return rows[:, None] * columns[None, :]


def _spans(values: dict[str, Any], axis: int, size: int) -> list[int]:
    """Return how many positions along one axis each window's divisor counts."""
    kernel, stride = values["kernel_size"][axis], values["stride"][axis]
    padding = values["padding"][axis]
    count = pooled_size(size, kernel, stride, padding, padding, 1, values["ceil_mode"])
    spans = []
    for index in range(count):
        start = index * stride - padding
        # torch counts padding, but never what ceil_mode adds beyond it.
        end = min(start + kernel, size + padding)
        if not values["count_include_pad"]:
            start, end = max(start, 0), min(end, size)
        spans.append(end - start)
    return spans


def _adaptive_avg_pool2d(e: Emission) -> fx.Node:
    values = arguments(e.node)
    _, _, *sizes = e.old.shape(values["self"])
    windows = [
        [end - start for start, end in adaptive_windows(int(size or 0), output)]
        for size, output in zip(sizes, values["output_size"], strict=True)
    ]
    rows, columns = (torch.tensor(span, dtype=torch.float64) for span in windows)
    counts = rows[:, None] * columns[None, :]
    multiplier = e.tensor(f"{get_origin(e.node).name}.multiplier", _mean_multiplier(e, counts))
    return e.call(
        _ops.adaptive_avg_pool2d_i8.default,
        *(e.operands[0].node, multiplier, values["output_size"]),
        *_ending(e, e.operands[0].qparams.zero_point),
    )


def _mean_multiplier(e: Emission, counts: torch.Tensor) -> torch.Tensor:
    """Return float32 `sx / (sy * count)`, computed in float64."""
    x, y = e.operands[0].qparams, e.pattern.qparams
    return (x.scale / (y.scale * counts)).to(torch.float32)


def _table(e: Emission) -> fx.Node:
    """Run the float operator, and the fused clamps, on each of the 256 values."""
    x, y = e.operands[0].qparams, e.pattern.qparams
    first = 0 if x.dtype == torch.uint8 else -128
    integers = torch.arange(first, first + 256, dtype=torch.int32)
    real = dequantize(integers, x.scale, x.zero_point)
    source = e.node.args[0]
    assert callable(e.node.target)
    args = tuple(real if argument is source else argument for argument in e.node.args)
    result = e.node.target(*args, **e.node.kwargs)
    entries = quantize(result, y.scale, y.zero_point, *e.bounds).to(y.dtype)
    table = e.tensor(f"{get_origin(e.node).name}.table", entries)
    return e.call(_ops.table_i8.default, e.operands[0].node, table)


_EMITTERS: dict[str, Callable[[Emission], fx.Node]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "add": _add,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
}

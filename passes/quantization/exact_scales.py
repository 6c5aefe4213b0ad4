"""exact_scales: move scales and biases to values that the integer operators represent exactly.

Integer addition multiplies by sa / sy and sb / sy as 15-bit numbers over one power of two, and a
bias is an int32 at the scale sx * sw. Rounding them at lowering time would make the deployed
network differ from the simulated one in about one value of a hundred. The scales are free to
2**-15 of their value, which costs no accuracy: so they are rounded here instead, where training
and evaluation see it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container
from dataclasses import replace

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.integer import fixed_point_add
from planish.ir.ops import activations, arguments, row, stored

from .observers import QParams, as_float32
from .quantization_placement import Placement

# A bias must fit int32 at the scale sx * sw; one bit is left for the sum.
_BIAS_LIMIT = 2.0**30


def proportional_scales(
    graph: Graph, placement: Placement, chosen: dict[fx.Node, QParams], cut: Container[fx.Node]
) -> dict[fx.Node, QParams]:
    """Return the parameters with `x * number` on the integers of x, at `number` times its scale.

    A scale of its own would tell no more apart, and cost a table: this one is no operator at all.
    Groups in `cut` cover less than their values on purpose, and keep what they have.
    """
    result = dict(chosen)
    leaders = Counter(placement.representative(point) for point in placement.points)
    for node in graph.calls:
        factor = _factor(node)
        leader = placement.representative(node)
        if factor is None or node not in placement.points or leaders[leader] != 1:
            continue
        source = placement.representative(activations(node)[0])
        if source is leader or source not in result or leader in cut:
            continue
        scale = as_float32(result[source].scale * factor)
        if 0.0 < scale < math.inf:
            result[leader] = replace(result[source], scale=scale)
    return result


def _factor(node: fx.Node) -> float | None:
    """Return the positive number that a node multiplies one value by, or None."""
    name, values = row(node).name, arguments(node)
    if name == "mul" and len(activations(node)) == 1:
        number = next(v for v in (values["other"], values["self"]) if isinstance(v, int | float))
        return float(number) if number > 0 else None
    if name == "div" and isinstance(values["other"], int | float) and values["other"] > 0:
        return 1.0 / values["other"] if values.get("rounding_mode") is None else None
    return None


def exact_additions(
    graph: Graph, placement: Placement, chosen: dict[fx.Node, QParams]
) -> dict[fx.Node, QParams]:
    """Return the parameters with the scales of additions and differences dyadic multiples.

    Additions are taken in execution order. A scale that an earlier one settled stays: then the
    result's scale, or the other operand's, moves. Where all three are settled nothing moves, and
    lowering rounds.
    """
    result = dict(chosen)
    settled: set[fx.Node] = set()
    for node in graph.calls:
        if row(node).name not in ("add", "sub") or len(activations(node)) != 2:
            continue
        first, second = (placement.representative(value) for value in activations(node))
        output = placement.representative(quantized_at(node, placement))
        if not {first, second, output} <= result.keys():
            continue
        _settle(result, settled, first, second, output)
        settled |= {first, second, output}
    return result


def quantized_at(node: fx.Node, placement: Placement) -> fx.Node:
    """Follow fused clamps to the value behind which the quantization stands."""
    while node not in placement.points and len(node.users) == 1:
        (node,) = node.users
    return node


def _settle(
    qparams: dict[fx.Node, QParams],
    settled: set[fx.Node],
    first: fx.Node,
    second: fx.Node,
    output: fx.Node,
) -> None:
    a, b, y = (qparams[node].scale for node in (first, second, output))
    a_multiplier, b_multiplier, shift = fixed_point_add(a, b, y)
    unit = 2.0**-shift
    anchors = [(first, a, a_multiplier), (second, b, b_multiplier)]
    fixed = [anchor for anchor in anchors if anchor[0] in settled and anchor[2] > 0]
    if fixed and output not in settled | {first, second}:
        _, scale, multiplier = fixed[0]
        y = as_float32(scale / (multiplier * unit))
        qparams[output] = replace(qparams[output], scale=y)
    for node, _, multiplier in anchors:
        if node not in settled and node is not output and multiplier > 0:
            qparams[node] = replace(qparams[node], scale=as_float32(multiplier * unit * y))


def round_bias(
    graph: Graph, layer: fx.Node, x_scale: float, weight_scale: torch.Tensor
) -> torch.Tensor:
    """Round a layer's bias to multiples of sx * sw; return the weight scales.

    The weight scale of a channel whose bias would not fit int32 is widened until it does. A bias
    that another layer shares is left alone.
    """
    name = stored(arguments(layer)["bias"])
    if name is None:
        return weight_scale
    bias = graph.attribute(name)
    # The groups of a transposed convolution have the same scales.
    groups = bias.numel() // max(weight_scale.numel(), 1)
    needed = (bias.detach().abs().double() / (x_scale * _BIAS_LIMIT)).float()
    widest = needed.view(groups, -1).amax(0) if weight_scale.dim() else needed.max()
    scales = torch.maximum(weight_scale, widest)
    readers = [user for n in graph.nodes if stored(n) == name for user in n.users]
    if readers == [layer]:
        per_channel = scales.repeat(groups) if scales.dim() else scales
        step = x_scale * per_channel.double()
        rounded = (torch.round(bias.detach().double() / step) * step).float()
        graph.set_attribute(name, rounded, trainable=bias.requires_grad)
    return scales

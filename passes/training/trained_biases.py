"""Biases that training moved, brought back to what the integer operators represent exactly."""

from __future__ import annotations

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.ops import Quantization, activations, arguments, has_row, row, stored

from ..parameters.weights import has_weight
from ..quantization.exact_scales import round_bias


def round_trained_biases(graph: Graph) -> None:
    """Round the bias of every quantized layer to multiples of sx * sw, as insert-qdq did.

    Training moves biases off those multiples; lowering would round them, and the deployed network
    would differ from the one that was measured. Layers that stay in float are left alone.
    """
    for layer in graph.calls:
        if not has_weight(layer):
            continue
        weight = arguments(layer)["weight"]
        source = _quantizer(activations(layer)[0])
        if source is None or not _is_fake_quantize(weight):
            continue
        name = stored(arguments(weight)["scale"])
        x_scale = float(_scale(graph, source))
        before = _scale(graph, weight)
        after = round_bias(graph, layer, x_scale, before)
        if name is not None and not torch.equal(before, after):
            graph.set_attribute(name, after)


def _scale(graph: Graph, quantizer: fx.Node) -> torch.Tensor:
    return graph.attribute(str(arguments(quantizer)["scale"].target))


def _is_fake_quantize(node: fx.Node) -> bool:
    return has_row(node.target) and row(node).name == "fake_quantize"


def _quantizer(node: fx.Node) -> fx.Node | None:
    """Follow operators that keep the scale back to the fake-quantize that set it."""
    while not _is_fake_quantize(node):
        if not has_row(node.target) or row(node).quantization is not Quantization.SAME_SCALE:
            return None
        node = activations(node)[0]
    return node

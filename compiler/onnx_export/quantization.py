"""Fake-quantize nodes as QuantizeLinear and DequantizeLinear, the way other runtimes fuse them.

An activation becomes a pair of both. A weight is stored as integers with a DequantizeLinear. The
bias of a layer whose input and weight are quantized is stored as int32 at the scale sx * sw. And
an operator that only moves integers (a concatenation on one scale) gets a pair behind it with the
scale that it has anyway: runtimes look for pairs around each operator, and it changes no value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.integer import quantize
from planish.ir.ops import Quantization, activations, arguments, has_row, quantization, row, stored
from planish.ir.signature import dtype_name

from .writer import Writer, refused

_fake_quantize = torch.ops.planish.fake_quantize.default
_INT32 = 2**31 - 1
# Storage in the order of preference; 16 bits since opset 21.
_STORAGE = (
    (torch.uint8, 0, 255, 1),
    (torch.int8, -128, 127, 1),
    (torch.uint16, 0, 65535, 21),
    (torch.int16, -32768, 32767, 21),
)


@dataclass(frozen=True)
class _Grid:
    """The quantization of an activation: its fake-quantize node's scale and range."""

    quantizer: fx.Node

    @property
    def key(self) -> tuple[object, ...]:
        values = arguments(self.quantizer)
        places = tuple(str(values[role].target) for role in ("scale", "zero_point"))
        return (*places, values["axis"], values["lo"], values["hi"])


class Quantizer:
    """Writes what concerns quantization.

    Attributes:
        graph: Whose nodes are written.
        writer: Where they go.
    """

    def __init__(self, graph: Graph, writer: Writer) -> None:
        self.graph = graph
        self.writer = writer
        self._grids: dict[fx.Node, _Grid] = {}
        self._weights: dict[tuple[object, ...], str] = {}
        self._parameters: dict[tuple[object, ...], str] = {}

    def fake_quantize(self, node: fx.Node) -> str:
        """Write a fake-quantize node."""
        values = arguments(node)
        self._grids[node] = _Grid(node)
        if stored(values["x"]) is not None:
            return self.weight(node)
        value = self.writer.value(values["x"])
        if self._storage(node)[1:] != (values["lo"], values["hi"]):
            value = self._clip(node, value)
        return self._pair(node, value, node)

    def is_redundant(self, node: fx.Node) -> bool:
        """Whether a clamp is only read by quantizers whose range clamps at least as much.

        A relu before an unsigned quantization without zero point is the standard case. Runtimes
        look for the pair right behind the layer, so the clamp is left out; no value changes.
        """
        if not has_row(node.target) or quantization(node) is not Quantization.CLAMP:
            return False
        bounds = row(node).bounds
        assert bounds is not None
        return bool(node.users) and all(
            user.target is _fake_quantize and self._covers(user, bounds(node))
            for user in node.users
        )

    def _covers(self, quantizer: fx.Node, bounds: tuple[float, float]) -> bool:
        """Whether both real bounds, quantized, are the ends of the quantizer's range."""
        values = arguments(quantizer)
        scale, zero_point = (self._tensor(quantizer, role) for role in ("scale", "zero_point"))
        ends = [
            quantize(torch.tensor(bound), scale, zero_point, values["lo"], values["hi"])
            for bound in bounds
        ]
        return bool((ends[0] == values["lo"]).all() and (ends[1] == values["hi"]).all())

    def moved(self, node: fx.Node, value: str) -> str:
        """Return the value of an operator; one that moves integers gets a pair of its own."""
        grid = self._moved_grid(node)
        if grid is None:
            return value
        self._grids[node] = grid
        readers = list(node.users)
        if all(reader.target is _fake_quantize for reader in readers):
            return value  # a pair follows anyway
        return self._pair(node, value, grid.quantizer)

    def bias(self, node: fx.Node) -> str:
        """Return a layer's bias: int32 with DequantizeLinear where input and weight are quantized.

        A bias that doesn't fit int32 at that scale stays in float.
        """
        bias = arguments(node)["bias"]
        if bias is None:
            return ""
        found = self._integer_bias(node, bias)
        if found is None:
            return self.writer.value(bias)
        integers, scale = found
        stem = str(bias.target)
        operands = (
            self.writer.store(f"{stem}_quantized", integers),
            self.writer.store(f"{stem}_scale", scale),
            self.writer.store(f"{stem}_zero_point", torch.zeros_like(scale, dtype=torch.int32)),
        )
        axis = 0 if scale.dim() else None
        return self._op("DequantizeLinear", node, *operands, axis=axis)

    def _integer_bias(
        self, node: fx.Node, bias: fx.Node
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return int32 `rne(bias / (sx * sw))` and float32 `sx * sw`, computed in float64."""
        weight = arguments(node)["weight"]
        source = self._grids.get(activations(node)[0])
        if source is None or stored(bias) is None or weight.target is not _fake_quantize:
            return None
        if arguments(source.quantizer)["axis"] is not None:
            return None
        scale = (
            self._tensor(source.quantizer, "scale").double()
            * self._tensor(weight, "scale").double()
        )
        real = self.graph.attribute(str(bias.target)).detach().double()
        if scale.dim() and scale.shape != real.shape:
            return None  # the weight's scales don't lie along the outputs
        integers = torch.round(real / scale)
        if bool((integers.abs() > _INT32).any()):
            return None
        return integers.to(torch.int32), scale.float()

    def _moved_grid(self, node: fx.Node) -> _Grid | None:
        """Return the scale of an operator that moves integers of one scale, else None."""
        if not has_row(node.target) or quantization(node) is not Quantization.SAME_SCALE:
            return None
        if node.target is _fake_quantize or row(node).name == "dropout":
            return None
        grids = [self._grids.get(source) for source in activations(node)]
        first = grids[0] if grids else None
        if first is None or first.key[2] is not None:
            return None
        same = all(grid is not None and grid.key == first.key for grid in grids)
        return first if same else None

    def _pair(self, node: fx.Node, value: str, quantizer: fx.Node) -> str:
        values = arguments(quantizer)
        operands = self._qparams(quantizer, self._storage(quantizer)[0])
        integers = self._op("QuantizeLinear", node, value, *operands, axis=values["axis"])
        return self._op("DequantizeLinear", node, integers, *operands, axis=values["axis"])

    def _clip(self, node: fx.Node, value: str) -> str:
        """Clip to a range that is narrower than its storage, before QuantizeLinear."""
        values = arguments(node)
        if values["axis"] is not None:
            raise refused(node, "a channel with a range narrower than its type has no QDQ form")
        scale, zero_point = (self._tensor(node, role) for role in ("scale", "zero_point"))
        ends = [float((values[bound] - zero_point) * scale) for bound in ("lo", "hi")]
        low, high = (
            self.writer.constant(f"{node.name}_number", np.array(end, np.float32)) for end in ends
        )
        return self._op("Clip", node, value, low, high)

    def weight(self, node: fx.Node, *, transposed: bool = False) -> str:
        """Store a weight as integers, as it is or (a matrix) transposed; return its real values.

        Nothing else of it is stored.
        """
        values = arguments(node)
        name, axis = str(values["x"].target), values["axis"]
        key = (name, transposed, *_Grid(node).key)
        if key not in self._weights:
            dtype, _, _ = self._storage(node)
            if values["lo"] >= -128 and values["hi"] <= 127:
                dtype = torch.int8
            integers = self._integers(node).to(dtype)
            if transposed:
                integers, axis = integers.t(), None if axis is None else 1 - axis
            operands = (self.writer.store(name, integers), *self._qparams(node, dtype))
            self._weights[key] = self._op("DequantizeLinear", node, *operands, axis=axis)
        return self._weights[key]

    def _op(self, operator_type: str, node: fx.Node, *inputs: str, **attributes: Any) -> str:
        """Add an ONNX node for a node of the graph; return its output's name."""
        return self.writer.add(operator_type, inputs, node, **attributes)[0]

    def _integers(self, quantizer: fx.Node) -> torch.Tensor:
        values = arguments(quantizer)
        x = self.graph.attribute(str(values["x"].target)).detach()
        scale, zero_point = (self._tensor(quantizer, role) for role in ("scale", "zero_point"))
        if values["axis"] is not None:
            shape = [1] * x.dim()
            shape[values["axis"]] = -1
            scale, zero_point = scale.view(shape), zero_point.view(shape)
        return quantize(x, scale, zero_point, values["lo"], values["hi"])

    def _storage(self, quantizer: fx.Node) -> tuple[torch.dtype, int, int]:
        """Return the narrowest element type that holds a range, and its own range."""
        values = arguments(quantizer)
        for dtype, low, high, since in _STORAGE:
            if low <= values["lo"] and values["hi"] <= high and since <= self.writer.opset:
                return dtype, low, high
        raise refused(
            quantizer,
            f"with the range {values['lo']} to {values['hi']} has no QDQ form at opset "
            f"{self.writer.opset}",
        )

    def _qparams(self, quantizer: fx.Node, dtype: torch.dtype) -> tuple[str, str]:
        """Return the initializers of scale and zero point; shared parameters are stored once."""
        values = arguments(quantizer)
        found = []
        for role, kind in (("scale", torch.float32), ("zero_point", dtype)):
            name = str(values[role].target)
            key = (name, kind)
            if key not in self._parameters:
                tensor = self._tensor(quantizer, role)
                array = tensor.to(torch.int64).numpy().astype(dtype_name(dtype))
                exact = tensor.float() if role == "scale" else array
                self._parameters[key] = self.writer.store(name, exact)
            found.append(self._parameters[key])
        return found[0], found[1]

    def _tensor(self, quantizer: fx.Node, role: str) -> torch.Tensor:
        return self.graph.attribute(str(arguments(quantizer)[role].target)).detach()

"""What every emitter is given, and how it says that there is no integer form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from planish.ir.graph import Graph
from planish.ir.integer import quantize
from planish.ir.ops import arguments
from planish.ir.origin import get_origin

from ..quantization.observers import QParams
from .integer_patterns import fake_quantize

INFINITE = (-math.inf, math.inf)


class NoIntegerForm(Exception):  # noqa: N818  (not an error: the operator stays in float)
    """An operator whose constants the integer arithmetic can't hold; the text is the reason."""


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
        output: The result's parameters; None for a real result.
        real_bounds: Real bounds of the clamps that are fused.
    """

    old: Graph
    new: Graph
    node: fx.Node
    operands: tuple[Operand, ...]
    output: QParams | None = None
    real_bounds: tuple[float, float] = INFINITE

    @property
    def values(self) -> dict[str, Any]:
        """The float operator's arguments by schema name."""
        return arguments(self.node)

    @property
    def x(self) -> Operand:
        """The first operand."""
        return self.operands[0]

    @property
    def y(self) -> QParams:
        """The parameters of a quantized result."""
        assert self.output is not None, self.node
        return self.output

    @property
    def y_scale(self) -> float:
        """The result's scale; 1 for a real result."""
        return 1.0 if self.output is None else self.output.scale

    @property
    def bounds(self) -> tuple[int, int]:
        """The clamp in the quantized domain: the fused real bounds, quantized."""
        return quantized_bounds(self.y, self.real_bounds)

    def ending(self, *x_zero_points: int) -> tuple[Any, ...]:
        """The arguments that end every requantizing operator: zero points, clamp, dtype."""
        return (*x_zero_points, self.y.zero_point, *self.bounds, self.y.dtype)

    def size(self, node: fx.Node, axis: int) -> int:
        """Return a size that must be known; NoIntegerForm where it depends on the open batch."""
        size = self.old.shape(node)[axis]
        if size is None:
            raise NoIntegerForm(f"the size of its axis {axis} is open")
        return size

    def constant(self, node: fx.Node | None) -> torch.Tensor | None:
        """Return the real values of a stored tensor, fake-quantized where the graph does so."""
        if node is None:
            return None
        if node.target is not fake_quantize:
            return self.old.attribute(str(node.target)).detach()
        values = arguments(node)
        x, scale, zero_point = (
            self.old.attribute(str(values[role].target)) for role in ("x", "scale", "zero_point")
        )
        rest = (values["axis"], values["lo"], values["hi"])
        return fake_quantize(x.detach(), scale, zero_point, *rest)

    def tensor(self, name: str, value: torch.Tensor) -> fx.Node:
        """Store a tensor in the new graph and read it; an equal one of that name is shared."""
        known = self.new.attributes.get(name)
        if known is not None and known.dtype == value.dtype and torch.equal(known, value):
            return self.new.fx.get_attr(name)
        return self.new.fx.get_attr(self.new.new_attribute(name, value))

    def own_tensor(self, role: str, value: torch.Tensor) -> fx.Node:
        """Store a tensor that belongs to this operator alone."""
        return self.tensor(f"{get_origin(self.node).name}.{role}", value)

    def call(self, target: Any, *args: Any) -> fx.Node:
        """Add a call with the operator's origin."""
        new = self.new.fx.create_node("call_function", target, args, name=self.node.name)
        new.meta["origin"] = get_origin(self.node)
        return new


def quantized_bounds(q: QParams, real: tuple[float, float]) -> tuple[int, int]:
    """Return real bounds in the quantized domain."""

    def bound(value: float, otherwise: int) -> int:
        if math.isinf(value):
            return otherwise
        return int(quantize(torch.tensor(value), q.scale, q.zero_point, q.lo, q.hi))

    return bound(real[0], q.lo), bound(real[1], q.hi)

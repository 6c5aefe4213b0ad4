"""Between integers and the real values that they stand for: scales, zero points, ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from planish.ir.integer import dtype_range, quantize
from planish.passes.parameters.weights import along_axis

from .call import Call
from .emitter import Emitter
from .quantized_constants import channel_axis
from .values import Constant, IntegerBias, Operand, Quantized, QuantizedConstant

aten = torch.ops.aten
_fake_quantize = torch.ops.planish.fake_quantize.default


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of a tensor of integers.

    Attributes:
        scale: float32, [] or [channels].
        zero_point: int32, of the same shape.
        dtype: Of the integers.
        axis: Of the channels, or None for one scale.
        name: What the model calls the scale.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    dtype: torch.dtype
    axis: int | None = None
    name: str = "quantization"

    def same(self, other: Quantized) -> bool:
        """Whether integers on another grid mean the same values."""
        return (
            self.axis == other.axis
            and torch.equal(self.scale, other.scale)
            and torch.equal(self.zero_point, other.zero_point)
        )

    def spread(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and zero point shaped to broadcast against a tensor of `rank` axes."""
        axis = self.axis or 0
        return along_axis(self.scale, axis, rank), along_axis(self.zero_point, axis, rank)


def read_grid(
    call: Call,
    scale: int,
    zero_point: int,
    *,
    rank: int,
    axis: int | None = None,
    dtype: torch.dtype = torch.uint8,
) -> Grid:
    """Return the grid that two inputs of a node describe.

    Args:
        call: The node.
        scale: Position of the scale among its inputs.
        zero_point: Position of the zero point, which may be left out.
        rank: Axes of the tensor.
        axis: Of the channels, where there is a scale for each.
        dtype: Of the integers where no zero point tells it.

    Raises:
        OperatorError: Blocked scales, a scale that is not above zero, or an unlike zero point.
    """
    values = call.constant(scale)
    if values.dtype != torch.float32:
        raise call.refuse(f"has a scale of {values.dtype}; float32 is supported")
    shift = call.constant(zero_point) if call.has(zero_point) else None
    if shift is not None and shift.is_floating_point():
        raise call.refuse("quantizes to floats; integers are supported")
    dtype = dtype if shift is None else shift.dtype
    if values.numel() == 1:
        axis, values = None, values.reshape(())
    if values.dim() > 1:
        raise call.refuse(f"has scales in blocks {list(values.shape)}; one a channel is supported")
    if values.dim() == 1 and axis is None:
        raise call.refuse(f"has {values.numel()} scales where one is supported")
    if not bool((values > 0).all()) or not bool(torch.isfinite(values).all()):
        raise call.refuse("has a scale that is not above zero")
    shift = torch.zeros(()) if shift is None else shift
    if shift.numel() not in (1, values.numel()):
        raise call.refuse(f"has {shift.numel()} zero points for {values.numel()} scales")
    shift = shift.reshape(-1).to(torch.int32).expand(max(values.numel(), 1)).reshape(values.shape)
    if axis is not None:
        axis = 0 if rank == 1 else axis % rank
    given = call.value(scale)
    name = given.name if isinstance(given, Constant) else call.name
    return Grid(values.clone(), shift.clone(), dtype, axis, name)


def quantized(call: Call, x: Operand, grid: Grid) -> Quantized | Constant:
    """Return QuantizeLinear of a real tensor; integers right away for a constant."""
    lo, hi = dtype_range(grid.dtype)
    if isinstance(x, Constant):
        scale, zero_point = grid.spread(x.tensor.dim())
        integers = quantize(x.tensor.float(), scale, zero_point, lo, hi).to(grid.dtype)
        return Constant(integers, x.name)
    scale, zero_point = call.emitter.parameters(grid.scale, grid.zero_point, grid.name)
    node = call.emit(_fake_quantize, x, scale, zero_point, grid.axis, lo, hi)
    return Quantized(node, grid.scale, grid.zero_point, grid.dtype, grid.axis)


def real(call: Call, index: int, grid: Grid) -> Operand:
    """Return DequantizeLinear of an input: float32."""
    found = call.value(index)
    if isinstance(found, Quantized) and grid.same(found):
        return found.node
    if isinstance(found, Constant):
        return _stored(found, grid)
    integers = raw(call, index)
    values = call.emit(aten.to.dtype, integers, torch.float32)
    rank = call.rank(values)
    scale, zero_point = grid.spread(rank)
    if grid.axis is None:
        shifted = call.emit(aten.sub.Tensor, values, float(zero_point))
        scaled = call.emit(aten.mul.Tensor, shifted, float(scale))
    else:
        shifted = call.emit(aten.sub.Tensor, values, call.make(zero_point.float(), "zero_point"))
        scaled = call.emit(aten.mul.Tensor, shifted, call.make(scale, "scale"))
    if grid.dtype.itemsize > 2:
        return scaled
    # They lie on the grid already: this says so, and what reads them computes on integers.
    on_grid = quantized(call, scaled, grid)
    assert isinstance(on_grid, Quantized)
    return on_grid.node


def raw(call: Call, index: int) -> fx.Node | Constant:
    """Return the integers of an input as a tensor of their own type, exactly."""
    found = call.value(index)
    if not isinstance(found, Quantized):
        return call.operand(index)
    return integers(call.emitter, found)


def integers(emitter: Emitter, value: Quantized) -> fx.Node:
    """Return the integers that real values on a grid stand for, as a tensor of their type."""
    scale, zero_point = Grid(value.scale, value.zero_point, value.dtype, value.axis).spread(
        emitter.value(value.node).dim()
    )
    parts: list[Any] = (
        [float(scale), float(zero_point)]
        if value.axis is None
        else [
            Constant(scale, "scale"),
            Constant(zero_point.float(), "zero_point"),
        ]
    )
    steps = emitter.emit(aten.round.default, emitter.emit(aten.div.Tensor, value.node, parts[0]))
    shifted = emitter.emit(aten.add.Tensor, steps, parts[1])
    return emitter.emit(aten.to.dtype, shifted, value.dtype)


def _stored(constant: Constant, grid: Grid) -> Constant:
    """Return the real values of stored integers: a weight, or (32 bits) a bias."""
    tensor = constant.tensor
    scale, zero_point = grid.spread(tensor.dim())
    values = ((tensor.double() - zero_point) * scale.double()).float()
    name = constant.name.removesuffix("_quantized")
    if tensor.dtype.itemsize > 2:
        plain = tensor.dtype == torch.int32 and not bool(grid.zero_point.any())
        if plain:
            return IntegerBias(values, name, True, tensor, grid.scale)
        return Constant(values, name, trainable=True)
    lo, hi = dtype_range(tensor.dtype)
    if lo < 0 and bool((tensor > lo).all() and (zero_point > lo).all()):
        lo += 1  # symmetric, as insert-qdq makes them
    spread = scale.expand(tensor.shape)
    return QuantizedConstant(values, name, True, spread, zero_point.expand(tensor.shape), lo, hi)


def exact_bias(call: Call) -> None:
    """Let the int32 bias of a layer mean multiples of sx * sw, not of that product's float32.

    Files hold the product rounded; above 2**22 an integer would not come back the same.
    """
    if len(call.inputs) < 3 or call.operator not in ("Conv", "Gemm", "ConvTranspose"):
        return
    x, weight, bias = call.inputs[:3]
    quantized_x = isinstance(x, fx.Node) and x.target is _fake_quantize and x.args[3] is None
    if not (quantized_x and isinstance(weight, QuantizedConstant)):
        return
    found = channel_axis(weight)
    if not isinstance(bias, IntegerBias) or found is None:
        return
    name = str(x.args[1].target)  # type: ignore[union-attr]
    step = call.emitter.graph.attribute(name).detach().double() * found[1].double()
    if step.shape == bias.scale.shape and torch.equal(step.float(), bias.scale):
        call.inputs[2] = Constant((bias.integers.double() * step).float(), bias.name, True)

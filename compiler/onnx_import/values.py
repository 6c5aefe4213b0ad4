"""What an ONNX value is while a model is imported.

Each value of the ONNX graph is one of
  - an fx node: a tensor computed from the inputs;
  - `Constant`: a tensor that is known now. It is stored in the graph on its first use by an
    operator that stays; operators on constants alone are computed right away (`emitter`);
  - `Sizes`: whole numbers some of which depend on the open batch, as Shape gives them. Shape
    arithmetic is done on them entry by entry, so that an open batch survives a Reshape;
  - `Quantized`: integers made by QuantizeLinear or a QLinear operator, represented by the float
    node whose values lie on the grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import fx


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that is known at import.

    Attributes:
        tensor: Its values.
        name: What to store it under: the initializer's or the node's name.
        trainable: Whether it becomes a parameter: float initializers and what is made of them.
    """

    tensor: torch.Tensor
    name: str = "constant"
    trainable: bool = False


@dataclass(frozen=True, eq=False)
class QuantizedConstant(Constant):
    """A weight that DequantizeLinear makes of stored integers.

    It is stored as its real values with a fake_quantize behind them. Moving its values (a
    transposition at import) moves the scales with them.

    Attributes:
        scale: float32, of the tensor's shape (expanded).
        zero_point: int32, likewise.
        lo: Smallest integer.
        hi: Largest integer.
    """

    scale: torch.Tensor = field(default_factory=lambda: torch.tensor(1.0))
    zero_point: torch.Tensor = field(default_factory=lambda: torch.tensor(0, dtype=torch.int32))
    lo: int = -128
    hi: int = 127


@dataclass(frozen=True, eq=False)
class IntegerBias(Constant):
    """A bias that DequantizeLinear makes of int32.

    Attributes:
        integers: int32, of the tensor's shape.
        scale: float32, [] or [channels], as the file rounds it.
    """

    integers: torch.Tensor = field(default_factory=lambda: torch.tensor(0, dtype=torch.int32))
    scale: torch.Tensor = field(default_factory=lambda: torch.tensor(1.0))


@dataclass(frozen=True, eq=False)
class Sizes:
    """Whole numbers (int64), some of them nodes that read the open batch.

    Attributes:
        items: The numbers, in order.
        scalar: A tensor without axes (of one item), else one of one axis.
    """

    items: tuple[int | fx.Node, ...]
    scalar: bool = False


@dataclass(frozen=True, eq=False)
class Quantized:
    """A tensor of integers, represented by the real values that they stand for.

    Attributes:
        node: Float values on the grid (q - zero_point) * scale: a fake_quantize node, or a node
            that moves the values of one.
        scale: float32, [] or [channels].
        zero_point: int32, of the same shape.
        dtype: Of the integers: torch.uint8, torch.int8, ...
        axis: The axis of the channels, or None for one scale.
    """

    node: fx.Node
    scale: torch.Tensor
    zero_point: torch.Tensor
    dtype: torch.dtype
    axis: int | None = None

    def same_grid(self, other: Quantized) -> bool:
        """Whether equal integers of both mean equal values."""
        same = self.dtype == other.dtype and self.axis == other.axis
        return (
            same
            and torch.equal(self.scale, other.scale)
            and torch.equal(self.zero_point, other.zero_point)
        )


# What operators are emitted on.
Operand = fx.Node | Constant
# What converters give back.
Value = fx.Node | Constant | Sizes | Quantized

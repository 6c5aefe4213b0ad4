"""A dense, grouped or depthwise layer: what a strategy computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .value import Value


@dataclass(frozen=True)
class Residual:
    """An add_i8 that joins a layer's epilogue; it gives the layer's result the layer's zero point.

    Attributes:
        other: The other summand.
        self_factor: Fixed-point multiplier of the layer's own result.
        other_factor: Of the other summand.
        other_zero_point: Of the other summand in memory.
        scale: `2**-shift`.
        lo: Smallest result, the zero point already taken from it.
        hi: Largest result, likewise.
        zero_point: Of the sum.
    """

    other: Value
    self_factor: int
    other_factor: int
    other_zero_point: int
    scale: float
    lo: int
    hi: int
    zero_point: int


@dataclass(frozen=True)
class Layer:
    """A convolution; a linear layer is one with a 1 x 1 kernel whose rows are images.

    Attributes:
        x: Input, with the border that the windows reach over.
        y: Output.
        weight: Stored tensor, int8 [out, in/groups, kh, kw] or [out, in]; with a phase, that of a
            transposed convolution, [in, out/groups, kh, kw].
        bias: Stored tensor, int32 [out], or None.
        multiplier: Stored tensor, float32 [out].
        kernel: (height, width).
        stride: (vertical, horizontal).
        dilation: (vertical, horizontal).
        origin: (top, left) padding: where the first window begins.
        groups: As in torch.
        x_zero_point: Of the values in memory.
        lo: Smallest output in memory, the zero point already taken from it.
        hi: Largest output, likewise.
        zero_point: Of the output in memory.
        residual: What the epilogue adds.
        label: The layer's name.
        real: Whether the result is float32, `accumulator * multiplier`, without bounds.
        phase: Of a transposed convolution, (rows, columns): the taps of its kernel that this layer
            has, in the order of the input; none is one tap of zeros.
    """

    x: Value
    y: Value
    weight: str
    bias: str | None
    multiplier: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    origin: tuple[int, int]
    groups: int
    x_zero_point: int
    lo: int
    hi: int
    zero_point: int
    residual: Residual | None
    label: str
    real: bool = False
    phase: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    @property
    def weight_recipe(self) -> dict[str, Any]:
        """What packing recipes say of the weight."""
        if self.phase is None:
            return {"weight": self.weight}
        rows, columns = self.phase
        taps = {"groups": self.groups, "rows": list(rows), "columns": list(columns)}
        return {"weight": self.weight, "phase": taps}

    @property
    def out_channels(self) -> int:
        """Output channels."""
        return self.y.layout.pixels[3]

    @property
    def in_channels(self) -> int:
        """Input channels of one group."""
        return self.x.layout.pixels[3] // self.groups

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole batch."""
        images, height, width, channels = self.y.layout.pixels
        taps = self.kernel[0] * self.kernel[1] * self.in_channels
        return images * height * width * channels * taps

    @property
    def epilogue(self) -> list[int | float]:
        """The numbers of `kernels.epilogue.SCALARS`."""
        last, added = self.residual or self, self.residual
        stored = [last.lo + last.zero_point, last.hi + last.zero_point, last.zero_point]
        if added is None:
            return [*stored, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        own = [float(self.lo), float(self.hi), float(added.self_factor)]
        offset = -float(added.other_factor * added.other_zero_point)
        return [*stored, *own, float(added.other_factor), offset, added.scale]

    def pixel_maps(self) -> list[list[int]]:
        """Return [base, image, row, column] steps of each operand's pixels: x, y, residual.

        The first is where an output pixel's window begins in x.
        """
        image, row, pixel = self.x.layout.pixel_steps
        base = self.x.layout.base - self.origin[0] * row - self.origin[1] * pixel
        maps = [[base, image, row * self.stride[0], pixel * self.stride[1]]]
        operands = [self.y] + ([self.residual.other] if self.residual else [])
        return maps + [[v.layout.base, *v.layout.pixel_steps] for v in operands]

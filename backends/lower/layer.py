"""A dense, grouped or depthwise layer, and the strategies that can compute it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from planish.ir.errors import OptionError, unknown

from ..choosing import Choice, choose
from ..plan import Plan, Value


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


# Ways to compute a layer, best first: name to "module:class"; with a dot in front, a module of this
# folder. See docs/add-a-kernel.md.
STRATEGIES: dict[str, str] = {
    "cuda-depthwise": ".cuda_depthwise:CudaDepthwise",
    "cuda-dense": ".cuda_dense:CudaDense",
    "depthwise": ".depthwise:Depthwise",
    "winograd": ".winograd:Winograd",
    "hybrid": ".hybrid:Hybrid",
    "matrix": ".matrix:Matrix",
    "byte-products": ".byte_products:ByteProducts",
    "direct": ".direct:Direct",
    "dot-product": ".dot_product:DotProduct",
}

Knobs = Mapping[str, Any]


class Strategy(Protocol):
    """One way to compute a layer."""

    def fits(self, layer: Layer, plan: Plan) -> bool:
        """Whether this strategy can compute the layer on the plan's target, exactly."""
        ...

    def knobs(self, layer: Layer, plan: Plan) -> Sequence[Knobs]:
        """Settings worth measuring, as plain JSON; unmeasured, the first one is taken.

        A strategy that knows itself to be worse than one after it in the registry gives none.
        """
        ...

    def emit(self, layer: Layer, plan: Plan, knobs: Knobs) -> None:
        """Append the kernel calls."""
        ...


def is_bounded(layer: Layer, plan: Plan) -> bool:
    """Whether no sum times its multiplier can reach 2**31: sums are at most that in magnitude."""
    return bool(np.all(np.abs(plan.tensors[layer.multiplier]) < 1))


def find_ending(layer: Layer, plan: Plan) -> dict[str, bool]:
    """Return what a layer's `kernels.epilogue.Epilogue` may leave out."""
    last = layer.residual or layer
    whole = (last.lo + last.zero_point, last.hi + last.zero_point) == (0, 255)
    return {
        # A residual's sum is below 2**24.
        "unbounded": layer.residual.scale > 2**7 if layer.residual else not is_bounded(layer, plan),
        "clamped": not whole,
        "shifted": last.zero_point != 0,
    }


def find_strategy(name: str) -> Strategy:
    """Return the strategy with this name in the registry."""
    module, class_name = STRATEGIES[name].split(":")
    found = importlib.import_module(module, __package__)
    return getattr(found, class_name)()


def register_strategy(name: str, entry: str, *, before: str) -> None:
    """Add a strategy of your own: "package.module:class", tried before another one.

    Raises:
        OptionError: The name is taken, `before` is no strategy, or there is no such class.
    """
    if name in STRATEGIES:
        raise OptionError(f"a strategy {name!r} is registered already")
    if before not in STRATEGIES:
        raise unknown("strategy", before, STRATEGIES)
    module, _, class_name = entry.partition(":")
    try:
        getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(
            f"there is no strategy {entry!r}: {error}", cure='write "package.module:class"'
        ) from error
    entries = list(STRATEGIES.items())
    entries.insert(list(STRATEGIES).index(before), (name, entry))
    STRATEGIES.clear()
    STRATEGIES.update(entries)


def emit_layer(layer: Layer, plan: Plan) -> Choice:
    """Compute a layer in the way that `choosing` says; return the choice."""
    choice = choose(layer, plan)
    plan.layers.append((layer, choice))
    first = len(plan.steps)
    find_strategy(choice.strategy).emit(layer, plan, choice.knobs)
    _count_macs(layer, plan, first)
    return choice


def _count_macs(layer: Layer, plan: Plan, first: int) -> None:
    """Give a layer's work to the first of its steps, unless the strategy said whose it is."""
    steps = plan.steps[first:]
    if steps and not any(step.macs for step in steps):
        plan.steps[first] = replace(steps[0], macs=layer.macs)

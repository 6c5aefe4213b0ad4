"""The strategies that can compute a layer, best first; see docs/add-a-kernel.md."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from planish.ir.errors import OptionError, unknown

from ..layer import Layer
from ..plan import Plan

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

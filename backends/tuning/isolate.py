"""A layer by itself: its inputs and output in memory of their own, one choice of kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..choice import Choice
from ..emit import ENTRY, copy_bytes, emit_module
from ..layer import Layer
from ..layout import Layout
from ..link import compile_library
from ..lower.strategies import find_strategy
from ..memory import ALIGNMENT, lifetimes, place_values
from ..packing import aligned_bytes, pack_all
from ..plan import Plan
from ..value import Value
from .stored import Isolated, Region


class Bench:
    """A layer whose input, summand and output lie at the front of the workspace.

    They lie at the same places for each choice, so that one filled workspace serves all of them.

    Attributes:
        layer: The layer, on values of its own.
        output: Where its result lies.
    """

    def __init__(self, layer: Layer, plan: Plan) -> None:
        """Take a layer out of a lowered network.

        Args:
            layer: One of `plan.layers`.
            plan: The network's.
        """
        self._plan = plan
        self._own: dict[Value, int] = {}
        self.bytes = 0
        x, y = self._place(layer.x, "x"), self._place(layer.y, "y")
        residual = layer.residual
        if residual is not None:
            residual = replace(residual, other=self._place(residual.other, "other"))
        self.layer = replace(layer, x=x, y=y, residual=residual)
        self.output = _region(y, self._own[y])

    def _place(self, value: Value, name: str) -> Value:
        own = Value(name, value.layout, shift=value.shift, dense=value.dense)
        self._own[own] = self.bytes
        self.bytes += -(-own.nbytes // ALIGNMENT) * ALIGNMENT
        return own

    def filled(self, seed: int = 0) -> NDArray[np.uint8]:
        """Return the front of the workspace: random inputs within borders of the zero point."""
        random = np.random.default_rng(seed)
        memory = aligned_bytes(self.bytes)
        residual = self.layer.residual
        inputs = [(self.layer.x, self.layer.x_zero_point)]
        inputs += [(residual.other, 0)] if residual is not None else []
        for value, border in inputs:
            region = _region(value, self._own[value])
            whole = Region(region.offset, 0, (value.layout.size,), (1,), region.dtype)
            whole.view(memory)[...] = border
            values = region.view(memory)
            values[...] = random.integers(0, 256, values.shape, np.uint8)
        return memory

    def build(self, choice: Choice) -> Isolated:
        """Compile the layer as a choice computes it.

        Raises:
            OperatorError: The strategy can't compute the layer after all.
            TargetError: No compiler to link with.
        """
        network = self._plan
        tensors = dict(network.tensors)
        plan = Plan(network.target, network.threads, tensors=tensors, toolchain=network.toolchain)
        find_strategy(choice.strategy).emit(self.layer, plan, choice.knobs)
        workspace = self.bytes + place_values(plan)
        for value in lifetimes(plan):
            # The network's values go to the front, what the strategy itself needs behind them.
            value.offset = self._own[value] if value in self._own else self.bytes + value.offset
        module = emit_module(plan, [], [], workspace, copied=True)
        library = compile_library(module, plan.target, plan.toolchain)
        parameters = pack_all(plan.recipes, plan.tensors, plan.parameter_bytes)
        return Isolated(library, ENTRY, parameters, copy_bytes(plan), workspace)


def _region(value: Value, offset: int) -> Region:
    layout: Layout = value.layout
    image, row, pixel = layout.pixel_steps
    channel = layout.steps[1 if len(layout.shape) == 4 else -1] if layout.shape else 1
    steps = (image, row, pixel, channel)
    return Region(offset, layout.base, layout.pixels, steps, layout.dtype)

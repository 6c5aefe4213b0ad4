"""Strategy: dense layers by products of small matrices (ARM's `usmmla`)."""

from __future__ import annotations

from ..layer import Layer
from ..plan import Plan
from .direct import Direct


class Matrix(Direct):
    """What `Direct` fits, two pixels at a time, on processors that multiply matrices.

    An instruction multiplies 2 pixels x 8 activations by 8 weights x 2 channels: twice the products
    of a dot product, for one more instruction to load a second pixel into a register.
    """

    def fits(self, layer: Layer, plan: Plan) -> bool:
        """A processor with the instruction, several pixels, and what `Direct` asks for."""
        images, height, width, _ = layer.y.layout.pixels
        several = images * height * width > 1
        return plan.target.matrix_instruction is not None and several and super().fits(layer, plan)

    def instruction(self, plan: Plan) -> str:
        """The target's matrix instruction."""
        assert plan.target.matrix_instruction is not None
        return plan.target.matrix_instruction

"""Strategy: dense layers on ARM without dot products, by products of bytes summed in 16 bits."""

from __future__ import annotations

from collections.abc import Sequence

from ..layer import Layer
from ..plan import Plan
from .direct import Direct, best_knobs
from .strategies import Knobs


class ByteProducts(Direct):
    """What `Direct` fits, with `smull`, `smlal2` and `sadalp`, where the weights prove it exact.

    Sixteen products take three instructions, of which two multiply; with `smlal` at 16 bits they
    take four that multiply. Two products of bytes fit into 16 bits unless both are -128 * -128.
    """

    def fits(self, layer: Layer, plan: Plan) -> bool:
        """A processor whose best is `smlal`, no weight of -128, and what `Direct` asks for."""
        return (
            plan.target.instruction == "smlal"
            and super().fits(layer, plan)
            and bool((plan.tensors[layer.weight] > -128).all())
        )

    def instruction(self, plan: Plan) -> str:
        """`smull`, the first of the three."""
        del plan
        return "smull"

    def knobs(self, layer: Layer, plan: Plan) -> Sequence[Knobs]:
        """None where `Direct` is reckoned to be faster: in windows with short runs."""
        ours, theirs = self.reckoned(layer, plan), Direct().reckoned(layer, plan)
        return [] if theirs and ours[:1] >= theirs[:1] else best_knobs(ours)

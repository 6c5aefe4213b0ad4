"""The four levels of a graph, and how strongly a pass keeps its numbers."""

import enum


class Level(enum.IntEnum):
    """How far a graph has been lowered; later levels are larger.

    CAPTURED: ATen as exported. CANONICAL: the closed set of the operator table.
    QUANTIZED: canonical plus fake-quantize nodes. INTEGER: integer operators between an
    input quantize and an output dequantize.
    """

    CAPTURED = 0
    CANONICAL = 1
    QUANTIZED = 2
    INTEGER = 3

    @property
    def label(self) -> str:
        """The level's name as it is printed: "canonical"."""
        return self.name.lower()


class Numerics(enum.Enum):
    """What a pass promises about the graph's outputs on the same inputs.

    EXACT: equal. CLOSE: equal up to float rounding. CHANGES: no promise.
    """

    EXACT = "exact"
    CLOSE = "close"
    CHANGES = "changes"

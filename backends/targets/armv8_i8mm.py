"""armv8-i8mm: 64-bit ARM with int8 matrix products, since Cortex-A510 and A710, Neoverse V1."""

from dataclasses import replace

from ..target import Target
from .armv8_dotprod import armv8_dotprod


def armv8_i8mm() -> Target:
    """Exact int8 by `usmmla` (2 x 8 u8 by 8 x 2 s8 into 2 x 2 of 32 bits) and `usdot`.

    Both take activations as they lie in memory; neither saturates.
    """
    base = armv8_dotprod()
    return replace(
        base,
        name="armv8-i8mm",
        description="64-bit ARM with int8 matrix products",
        features=(*base.features, "+i8mm"),
        cpu_flags=(*base.cpu_flags, "i8mm"),
        instruction="usdot",
        matrix_instruction="usmmla",
    )

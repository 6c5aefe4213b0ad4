"""armv8-dotprod: 64-bit ARM with dot products, since Cortex-A55 and A75 (2017), Apple A11."""

from dataclasses import replace

from ..target import Target
from .armv8 import FLAGS, armv8


def armv8_dotprod() -> Target:
    """Exact int8 by `sdot` (s8 x s8, four products into 32 bits, no saturation).

    Activations in memory are 0..255; a register of them is moved by 128 with one `eor`, and the
    bias makes good for it. The tile is 6 pixels x 16 channels: 24 sums, 6 vectors of activations
    and 2 of weights fill 32 registers.
    """
    return replace(
        armv8(),
        name="armv8-dotprod",
        description="64-bit ARM with dot products",
        features=("+v8.2a", "+dotprod"),
        cpu_flags=(*FLAGS, "asimddp"),
        instruction="sdot",
        tile=(6, 16),
    )

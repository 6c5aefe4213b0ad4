"""x86-avxvnni: AVX2 with VNNI, such as Intel's Alder Lake (2021) and later without AVX-512."""

from ..target import Target
from .x86_64_v3 import FLAGS


def x86_avxvnni() -> Target:
    """Exact int8 by `vpdpbusd` (u8 x s8, four products into 32 bits, no saturation).

    VEX encoding: 256-bit vectors, 16 registers. The tile is 4 pixels x 16 channels: 8 accumulators,
    2 weights and 1 broadcast; 6 x 16 needs 12 + 2 + 1 = 15 and leaves none for the epilogue's
    constants. Each of 8 accumulators waits 5 cycles for its last sum while two are issued a cycle.
    """
    return Target(
        name="x86-avxvnni",
        description="x86 with AVX2 and VNNI",
        cpu="x86-64-v3",
        features=("+avxvnni",),
        cpu_flags=(*FLAGS, "avx_vnni"),
        instruction="vpdpbusd",
        vector_bits=256,
        tile=(4, 16),
    )

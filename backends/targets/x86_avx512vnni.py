"""x86-avx512vnni: AVX-512 with VNNI, since Cascade Lake (Intel, 2019) and Zen 4 (AMD, 2022)."""

from ..target import Target
from .x86_64_v4 import FLAGS


def x86_avx512vnni() -> Target:
    """Exact int8 by 512-bit `vpdpbusd` (u8 x s8, four products into 32 bits, no saturation).

    The tile is 8 pixels x 16 channels: 8 accumulators, 1 weight and 1 broadcast of 32 registers. A
    sum is ready after 4 or 5 cycles, and two can be issued a cycle: 8 to 10 keep the ports busy.
    """
    return Target(
        name="x86-avx512vnni",
        description="x86 with AVX-512 and VNNI",
        cpu="x86-64-v4",
        features=("+avx512vnni",),
        cpu_flags=(*FLAGS, "avx512_vnni"),
        instruction="vpdpbusd",
        vector_bits=512,
        tile=(8, 16),
        channel_multiple=16,
    )

"""x86-64-v4: AVX-512 without VNNI, such as Intel's Skylake-X (2017)."""

from ..target import Target
from .x86_64_v3 import FLAGS as AVX2

FLAGS = (*AVX2, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")


def x86_64_v4() -> Target:
    """Exact int8 by 512-bit `vpmaddwd`, or `vpmaddubsw`, as on x86-64-v3 (see there).

    The tile is 8 pixels x 16 channels: 8 sums, 2 vectors of weights and 4 for a broadcast and its
    products, of 32 registers. 8 sums that don't wait for each other keep both ports busy.
    """
    return Target(
        name="x86-64-v4",
        description="x86 with AVX-512",
        cpu="x86-64-v4",
        features=(),
        cpu_flags=FLAGS,
        instruction="vpmaddwd",
        vector_bits=512,
        tile=(8, 16),
        channel_multiple=16,
    )

"""x86-64-v4: AVX-512 without VNNI, such as Intel's Skylake-X (2017)."""

from ..target import Target
from .x86_64_v3 import FLAGS as AVX2

FLAGS = (*AVX2, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")


def x86_64_v4() -> Target:
    """Exact int8 by 512-bit `vpmaddwd`: bytes in memory are expanded to 16 bits in registers.

    `vpmaddubsw`, which reads bytes, would saturate its 16-bit sums. The tile is 8 pixels x 16
    channels: 8 accumulators, 1 weight and 1 broadcast of 32 registers.
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
    )

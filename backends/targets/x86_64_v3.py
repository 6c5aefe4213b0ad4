"""x86-64-v3: every x86 processor with AVX2, since 2013 (Intel) or 2015 (AMD)."""

from ..target import Target

FLAGS = ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")


def x86_64_v3() -> Target:
    """Exact int8 by `vpmaddwd`: bytes in memory are expanded to 16 bits in registers.

    `vpmaddubsw`, which reads bytes, saturates its 16-bit sums: it serves where the weights prove
    that they can't (see `kernels.hybrid`). The tile is 4 pixels x 16 channels: 8 sums, 4 vectors of
    weights (the even and the odd neighbours of two), a broadcast's even and odd bytes, their mask
    and a product fill 16 registers.
    """
    return Target(
        name="x86-64-v3",
        description="x86 with AVX2",
        cpu="x86-64-v3",
        features=(),
        cpu_flags=FLAGS,
        instruction="vpmaddwd",
        vector_bits=256,
        tile=(4, 16),
    )

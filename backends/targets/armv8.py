"""armv8: every 64-bit ARM processor, by NEON's long products."""

from ..target import Target

TRIPLE = "aarch64-unknown-linux-gnu"
FLAGS = ("asimd",)


def armv8() -> Target:
    """Exact int8 by `smull` at 8 bits (see `lower.byte_products`), else by `smlal` at 16 bits.

    For `smlal` bytes are widened in registers, and weights are 16 bits. The tile is 4 pixels x 16
    channels: 16 sums, 4 vectors of activations, 2 of weights, and as LLVM sums some products before
    it adds them, a few more of 32 registers. `smlal` takes an activation by lane.
    """
    return Target(
        name="armv8",
        description="64-bit ARM with NEON",
        cpu="generic",
        features=("+neon",),
        cpu_flags=FLAGS,
        instruction="smlal",
        vector_bits=128,
        tile=(4, 16),
        triple=TRIPLE,
    )

"""armv8: every 64-bit ARM processor, by NEON's `smlal`."""

from ..target import Target

TRIPLE = "aarch64-unknown-linux-gnu"
FLAGS = ("asimd",)


def armv8() -> Target:
    """Exact int8 by `smlal`: bytes are widened to 16 bits in registers, weights are 16 bits.

    The tile is 6 pixels x 16 channels: 24 sums, 6 vectors of activations, 1 of weights of 32
    registers. Eight activations of a pixel are widened at once; `smlal` takes one of them by lane.
    """
    return Target(
        name="armv8",
        description="64-bit ARM with NEON",
        cpu="generic",
        features=("+neon",),
        cpu_flags=FLAGS,
        instruction="smlal",
        vector_bits=128,
        tile=(6, 16),
        triple=TRIPLE,
    )

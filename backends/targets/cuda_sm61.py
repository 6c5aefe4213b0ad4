"""cuda-sm61: NVIDIA's Pascal as in the GTX 10 series (2016), the first with an int8 instruction."""

from ..target import Target


def cuda_sm61() -> Target:
    """Exact int8 by `dp4a` (four products into 32 bits, no saturation).

    A vector is what one load brings, 128 bits, and pixels in multiples of them are read with
    aligned loads; those of an image are whole words. The tile serves the rules of processors
    only: `cuda.dense` has its own.
    """
    return Target(
        name="cuda-sm61",
        description="NVIDIA Pascal (6.1)",
        cpu="sm_61",
        features=(),
        cpu_flags=(),
        instruction="dp4a",
        vector_bits=128,
        tile=(4, 8),
        channel_multiple=16,
        capability=(6, 1),
        compact_multiple=4,
        task_lanes=4,
    )

"""cuda-sm80: NVIDIA's Ampere and Ada (2020), such as A100, A10, L4 and the RTX 30 and 40 series."""

from ..target import Target


def cuda_sm80() -> Target:
    """Exact int8 by the tensor cores' `mma` on s8 and u8 (32-bit sums that wrap). One is m16n8k32.

    See `cuda_sm61` on vectors and the tile.
    """
    return Target(
        name="cuda-sm80",
        description="NVIDIA Ampere, Ada (8.x)",
        cpu="sm_80",
        features=(),
        cpu_flags=(),
        instruction="mma-s8",
        vector_bits=128,
        tile=(4, 8),
        channel_multiple=16,
        capability=(8, 0),
        compact_multiple=4,
        task_lanes=4,
    )

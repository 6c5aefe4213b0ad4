"""cuda-sm90: NVIDIA's Hopper (2022), such as H100 and H200."""

from ..target import Target


def cuda_sm90() -> Target:
    """Exact int8 by the tensor cores' `mma` on s8 and u8 (32-bit sums that wrap). One is m16n8k32.

    See `cuda_sm61` on vectors and the tile.
    """
    return Target(
        name="cuda-sm90",
        description="NVIDIA Hopper (9.0)",
        cpu="sm_90",
        features=(),
        cpu_flags=(),
        instruction="mma-s8",
        vector_bits=128,
        tile=(4, 8),
        channel_multiple=16,
        capability=(9, 0),
        compact_multiple=4,
        task_lanes=4,
    )

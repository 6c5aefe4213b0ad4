"""cuda-sm75: NVIDIA's Turing (2018), such as T4 and the RTX 20 series."""

from ..target import Target


def cuda_sm75() -> Target:
    """Exact int8 by the tensor cores' `mma` on s8 and u8 (32-bit sums that wrap). One is m8n8k16.

    See `cuda_sm61` on vectors and the tile.
    """
    return Target(
        name="cuda-sm75",
        description="NVIDIA Turing (7.5)",
        cpu="sm_75",
        features=(),
        cpu_flags=(),
        instruction="mma-s8",
        vector_bits=128,
        tile=(4, 8),
        channel_multiple=16,
        capability=(7, 5),
        compact_multiple=4,
        task_lanes=4,
    )

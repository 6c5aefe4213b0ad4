"""cuda-sm75: NVIDIA's Turing (2018), such as T4 and the RTX 20 series."""

from dataclasses import replace

from ..target import Target
from .cuda_sm61 import cuda_sm61


def cuda_sm75() -> Target:
    """Exact int8 by the tensor cores' `mma` on s8 and u8 (32-bit sums that wrap). One is m8n8k16.

    See `cuda_sm61` on vectors and the tile.
    """
    return replace(
        cuda_sm61(),
        name="cuda-sm75",
        description="NVIDIA Turing (7.5)",
        cpu="sm_75",
        instruction="mma-s8",
        capability=(7, 5),
    )

"""cuda-sm80: NVIDIA's Ampere and Ada (2020), such as A100, A10, L4 and the RTX 30 and 40 series."""

from dataclasses import replace

from ..target import Target
from .cuda_sm75 import cuda_sm75


def cuda_sm80() -> Target:
    """Exact int8 by the tensor cores' `mma` on s8 and u8. One is m16n8k32."""
    return replace(
        cuda_sm75(),
        name="cuda-sm80",
        description="NVIDIA Ampere, Ada (8.x)",
        cpu="sm_80",
        capability=(8, 0),
    )

"""cuda-sm90: NVIDIA's Hopper (2022), such as H100 and H200."""

from dataclasses import replace

from ..target import Target
from .cuda_sm80 import cuda_sm80


def cuda_sm90() -> Target:
    """Exact int8 as on `cuda-sm80`."""
    return replace(
        cuda_sm80(),
        name="cuda-sm90",
        description="NVIDIA Hopper (9.0)",
        cpu="sm_90",
        capability=(9, 0),
    )

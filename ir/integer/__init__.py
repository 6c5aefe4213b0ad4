"""The integer operators and their exact meaning: the reference that every backend must equal.

Importing this package defines `torch.ops.planish.*`. The formulas are DESIGN's numeric contract:
rounding is to nearest, ties to even; accumulators are int32 and wrap; no float expression that a
compiler may contract. See docs/numeric-contract.md.
"""

from . import elementwise, fake_quantize, layers, normalization, pooling, products, resampling
from .arithmetic import (
    dequantize,
    dtype_range,
    fixed_point_add,
    quantize,
    requantize,
    requantize_multiplier,
)

__all__ = [
    "dequantize",
    "dtype_range",
    "elementwise",
    "fake_quantize",
    "fixed_point_add",
    "layers",
    "normalization",
    "pooling",
    "products",
    "quantize",
    "requantize",
    "requantize_multiplier",
    "resampling",
]

"""The integer operators and their exact meaning: the reference that every backend must equal.

Importing this package defines `torch.ops.planish.*`. The formulas are DESIGN's numeric contract:
rounding is to nearest, ties to even; accumulators are int32 and wrap; no float expression that a
compiler may contract. See docs/numeric-contract.md.

Activations are uint8 or int8 tensors, computed or stored: any operand (`x`, `a`, `b`, the tensors
of a cat, the weight of an embedding) may be a get_attr node that reads a stored uint8 or int8
tensor, such as positions, a layer scale, or a relative position bias. Weights, biases, tables,
multipliers, gains and offsets are always stored.
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

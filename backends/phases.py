"""The phases of a transposed convolution: outputs that the same taps of the kernel make.

Output row `oy` is made of the kernel rows `ky` for which `oy + padding - ky * dilation` is a
multiple of the stride; the quotient is the input row. So all output rows with one remainder (a
phase) use the same taps, and neighbours among them read neighbouring input rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import torch.fx

from planish.ir.ops import arguments

from .operators import sizes_of


@dataclass(frozen=True)
class Phase:
    """The rows (or columns) of the output with one remainder.

    Attributes:
        first: The first of them.
        count: How many there are.
        taps: The kernel's rows that they use, in the order of the input rows.
        start: The input row that the first tap of the first output reads.
        dilation: Input rows between two taps.
    """

    first: int
    count: int
    taps: tuple[int, ...]
    start: int
    dilation: int

    @property
    def last(self) -> int:
        """The last input row that is read."""
        return self.start + self.count - 1 + max(len(self.taps) - 1, 0) * self.dilation


def phases(kernel: int, stride: int, padding: int, dilation: int, size: int) -> list[Phase]:
    """Return the phases of one axis of a transposed convolution with `size` outputs."""
    found: list[Phase] = []
    for first in range(min(stride, size)):
        taps = [k for k in range(kernel) if (first + padding - k * dilation) % stride == 0]
        taps.reverse()
        start = (first + padding - taps[0] * dilation) // stride if taps else 0
        count = -(-(size - first) // stride)
        found.append(Phase(first, count, tuple(taps), start, dilation // gcd(dilation, stride)))
    return found


def find_phases(node: torch.fx.Node) -> list[list[Phase]]:
    """Return the phases of a transposed convolution's rows, and of its columns."""
    values = arguments(node)
    kernel = sizes_of(values["weight"])[2:]
    return [
        phases(
            kernel[axis],
            int(values["stride"][axis]),
            int(values["padding"][axis]),
            int(values["dilation"][axis]),
            sizes_of(node)[2 + axis],
        )
        for axis in (0, 1)
    ]

"""A tensor of the running network: how it lies in memory, and where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planish.ir.errors import OptionError

from .layout import SLACK, Layout, dense_layout

# Kernels count elements and bytes in 32 bits.
_MOST_BYTES = (1 << 31) - 1


def check_size(what: str, nbytes: int) -> None:
    """Raise OptionError if memory has more bytes than kernels can address."""
    if nbytes > _MOST_BYTES:
        raise OptionError(
            f"{what} takes {nbytes / 1e9:.1f} GB, and kernels address 2",
            cure="compile for a smaller batch or smaller inputs",
        )


@dataclass(eq=False)
class Value:
    """One tensor of the running network.

    Attributes:
        name: For listings.
        layout: How it lies in memory.
        place: "workspace", "input", "output" or "parameters" (a stored tensor).
        index: Which input or output.
        offset: Byte offset in the workspace, once that is planned, or in the parameter memory.
        shift: What is added to the quantized value in memory: 128 for int8.
        dense: Row-major in the tensor's own dtype, as users and TVM's own kernels have it; else in
            the integer region's layout.
        base: The value whose memory this one shows, for a view.
        kept: Whether its memory is its own from call to call, so that its border is written once.
    """

    name: str
    layout: Layout
    place: str = "workspace"
    index: int = 0
    offset: int = 0
    shift: int = 0
    dense: bool = False
    base: Value | None = None
    kept: bool = False

    def __post_init__(self) -> None:
        """Raise OptionError if it has more bytes than kernels can address."""
        check_size(f"tensor {self.name!r}", self.nbytes)

    @property
    def owner(self) -> Value:
        """The value that has the memory."""
        return self.base or self

    def view(self, name: str, layout: Layout) -> Value:
        """Return the same memory seen through another layout; kernels only read it."""
        return Value(name, layout, shift=self.shift, base=self.owner)

    @property
    def nbytes(self) -> int:
        """Bytes in the workspace, with the slack that vector instructions need."""
        return self.layout.size * np.dtype(self.layout.dtype).itemsize + SLACK


def scratch(name: str, size: int, dtype: str) -> Value:
    """Make memory of the workspace that one step, or a few, need for themselves."""
    return Value(name, dense_layout((size,), dtype), dense=True)

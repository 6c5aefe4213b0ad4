"""Kernel families: each file builds TensorIR functions of one algorithm.

A kernel takes raw pointers and scalars, returns 0, and knows its sizes only at run time where that
costs nothing: so one compiled function serves every layer of a network that uses the same tile.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

# Family name to "module:builder". A builder takes the options and returns a tvm.tirx.PrimFunc.
FAMILIES: dict[str, str] = {
    "dot-product": "dot_product:build",
    "depthwise": "depthwise:build",
    "max-pool": "pooling:build_max",
    "average-pool": "pooling:build_average",
    "add": "elementwise:build_add",
    "map": "elementwise:build_map",
    "gather": "movement:build_gather",
    "fill-halo": "movement:build_fill_halo",
}


@dataclass(frozen=True)
class Kernel:
    """One compiled function: a family and the options that are fixed at compile time."""

    family: str
    options: tuple[tuple[str, Any], ...]

    @staticmethod
    def of(family: str, **options: Any) -> Kernel:
        """Return the kernel of a family with these options; equal options give equal kernels."""
        return Kernel(family, tuple(sorted(options.items())))

    @property
    def name(self) -> str:
        """A name for listings and symbols: "dot_product_vpmaddwd_8_4_2"."""
        parts = [self.family.replace("-", "_")]
        for key, value in self.options:
            if isinstance(value, bool):
                parts += [key] if value else []
            else:
                parts.append("x".join(map(str, value)) if isinstance(value, tuple) else str(value))
        return "_".join(parts).replace("-", "_")

    def build(self) -> Any:
        """Return the kernel as a tvm.tirx.PrimFunc."""
        module, function = FAMILIES[self.family].split(":")
        builder = getattr(importlib.import_module(f".{module}", __name__), function)
        return builder(**dict(self.options))

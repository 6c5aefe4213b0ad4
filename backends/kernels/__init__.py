"""Kernel families: each file builds TensorIR functions of one algorithm.

A kernel takes raw pointers and scalars, returns 0, and knows its sizes only at run time where that
costs nothing: so one compiled function serves every layer of a network that uses the same tile.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any

# Family name to "module:builder"; with a dot in front, a module of this folder. A builder takes the
# options and returns a tvm.tirx.PrimFunc. Those of GPUs say what each thread does.
FAMILIES: dict[str, str] = {
    "winograd": ".winograd:build",
    "direct": ".direct:build",
    "hybrid": ".hybrid:build",
    "dot-product": ".dot_product:build",
    "depthwise": ".depthwise:build",
    "matmul": ".matmul:build",
    "matmul-pack": ".matmul:build_pack",
    "matmul-row-sums": ".matmul:build_row_sums",
    "max-pool": ".pooling:build_max",
    "average-pool": ".pooling:build_average",
    "softmax": ".normalization:build_softmax",
    "layer-norm": ".normalization:build_layer_norm",
    "mean": ".normalization:build_mean",
    "two-operands": ".elementwise:build_two",
    "map": ".elementwise:build_map",
    "quantize-planes": ".planes:build",
    "gather": ".movement:build_gather",
    "take": ".movement:build_take",
    "fill-halo": ".movement:build_fill_halo",
    "resize": ".resampling:build_resize",
    "cuda-dense": "..cuda.dense:build",
    "cuda-depthwise": "..cuda.depthwise:build",
    "cuda-fill-halo": "..cuda.borders:build",
    "cuda-matmul": "..cuda.matmul:build",
    "cuda-softmax": "..cuda.rows:build_softmax",
    "cuda-layer-norm": "..cuda.rows:build_layer_norm",
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
        """Return the kernel as a tvm.tirx.PrimFunc that the entry of a CPU's library calls."""
        return _build(self)

    def function(self) -> Any:
        """Return the tvm.tirx.PrimFunc that the family's builder makes."""
        return _function(self)


@cache
def _build(kernel: Kernel) -> Any:
    return close_kernel(_function(kernel), kernel.name)


@cache
def _function(kernel: Kernel) -> Any:
    """Build a kernel once in a process: parsing TVMScript takes longer than compiling it."""
    module, function = FAMILIES[kernel.family].split(":")
    builder = getattr(importlib.import_module(module, __name__), function)
    return builder(**dict(kernel.options))


def close_kernel(function: Any, name: str) -> Any:
    """Return a private function as one that the entry may call: it returns a status.

    TVM tells LLVM that different buffers never overlap. That holds inside one kernel, but not for
    two kernels of which one writes what the next one reads: so no kernel may be inlined. TVM's
    code generator makes a "compute_scope" a function of its own that LLVM does not inline.
    """
    from tvm import ir, tirx

    def scope(key: str, value: Any, body: Any) -> Any:
        return tirx.AttrStmt("default", key, value, body)

    inner = scope("compute_scope", ir.StringImm(f"{name}_compute"), function.body)
    # Small local buffers lie on the stack only where TVM knows that the device is a CPU.
    on_cpu = scope("device_type", tirx.IntImm("int32", 1), inner)
    body = scope("device_id", tirx.IntImm("int32", 0), on_cpu)
    closed = tirx.SeqStmt([body, tirx.stmt.Return(tirx.IntImm("int32", 0))])
    return tirx.PrimFunc(function.params, closed, ir.PrimType("int32"), function.attrs)

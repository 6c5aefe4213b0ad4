"""TensorIR functions in, CUDA C text out, with what a launch of each has to know.

TVM's own code generator writes the text. Its header, which needs CUDA's include files, is replaced:
the text stands between a prelude that brings types and the device functions that kernels call by
name (`planish_dot`, `planish_mma`, ...), `device.h` for NVIDIA's compiler and `emulator.h` for g++.
The parameters of a kernel are those of the TensorIR function, in its order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

# Grid or block: x, y and z.
Size = tuple[int, int, int]

_FALLBACK = "TVM_COMPILE_FORCE_FALLBACK"
_KERNEL_LAUNCH = 2  # tvm::CallingConv::kDeviceKernelLaunch
_FIRST_KERNEL = re.compile(r'^extern "C" __(global|device)__ ', re.MULTILINE)


@dataclass(frozen=True)
class Signature:
    """How a kernel is launched.

    Attributes:
        parameters: (name, dtype) in the kernel's order; a pointer's dtype is "handle".
        grid: Blocks along x, y and z.
        block: Threads of a block along x, y and z.
        shared: Bytes of dynamic shared memory; what kernels declare themselves is not in it.
    """

    parameters: tuple[tuple[str, str], ...]
    grid: Size
    block: Size
    shared: int = 0


def cuda_source(functions: Mapping[str, Any], arch: str) -> tuple[str, dict[str, Signature]]:
    """Return the CUDA C text of functions with thread bindings, without a prelude.

    Args:
        functions: Name to tvm.tirx.PrimFunc of raw pointers and scalars; the numbers of threads and
            blocks are constants.
        arch: "sm_80", for TVM's choices; the text is the same for all that planish emits.

    Returns:
        The text, and each kernel's signature.
    """
    target = tvm.target.Target({"kind": "cuda", "arch": arch})
    module = tvm.IRModule({name: _kernel(f, name, target) for name, f in functions.items()})
    module = tvm.ir.transform.Sequential(_passes())(module)
    lowered = {symbol.name_hint: function for symbol, function in module.functions.items()}
    signatures = {name: _signature(lowered[name]) for name in functions}
    with _source_only(), target:
        made = tvm.get_global_func("target.build.cuda")(module, target)
    return _without_header(made.inspect_source("cuda")), signatures


def prelude() -> str:
    """Return what has to stand before the text for NVIDIA's compiler."""
    folder = Path(__file__).parent
    return "".join((folder / name).read_text() for name in ("device.h", "floats.h"))


def _kernel(function: Any, name: str, target: Any) -> Any:
    """Return a function as one that the code generator makes a `__global__` of."""
    attributes = {
        "global_symbol": name,
        "target": target,
        "calling_conv": _KERNEL_LAUNCH,
        "tirx.is_global_func": True,
        "tirx.noalias": True,
    }
    return function.with_attr(attributes)


def _passes() -> list[Any]:
    """What turns loops and buffers into what the code generator prints.

    TVM's full pipeline would also move parameters and split off a host part that nobody calls.
    """
    return [
        s_tir.transform.UnifyThreadBinding(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.StmtSimplify(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.UnrollLoop(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        tirx.transform.LowerIntrin(),
    ]


def _signature(function: Any) -> Signature:
    found: dict[str, Any] = {}

    def note(node: Any) -> None:
        if node.attr_key == "thread_extent":
            found[node.node.thread_tag] = node.value

    tvm_ffi.structural_walk(function.body, (tirx.AttrStmt, note), order="post")
    parameters = tuple((p.name, _dtype(p)) for p in function.params)
    return Signature(parameters, _size("blockIdx", found), _size("threadIdx", found))


def _size(index: str, extents: Mapping[str, Any]) -> Size:
    x, y, z = (int(extents.get(f"{index}.{axis}", 1)) for axis in "xyz")
    return x, y, z


def _dtype(parameter: Any) -> str:
    pointer = isinstance(parameter.ty, tvm.ir.PointerType)
    return "handle" if pointer else str(parameter.ty.dtype)


@contextmanager
def _source_only() -> Iterator[None]:
    """Let TVM keep the text as it is: where a GPU is, it would compile it with options of its own.

    TVM reads this variable at each build.
    """
    before = os.environ.get(_FALLBACK)
    os.environ[_FALLBACK] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FALLBACK]
        else:
            os.environ[_FALLBACK] = before


def _without_header(text: str) -> str:
    """Return the text from the first declaration of a kernel on."""
    first = _FIRST_KERNEL.search(text)
    assert first is not None, "TVM's code generator declares each kernel"
    return text[first.start() :]

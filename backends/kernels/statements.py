"""Kernels written as Python that emits TensorIR, for those that TVMScript can't say plainly.

TVMScript parses a function's text: a helper can give it an expression, but no statement. With TVM's
IR builder a kernel is made of ordinary functions, and what repeats is a Python loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from .instructions import ANY

# TVM's own annotations ask for expressions where its functions take plain numbers as well.
T: Any = builder


def kernel(
    pointers: Sequence[tuple[str, str]],
    scalars: Sequence[tuple[str, str]],
    body: Callable[..., None],
) -> Any:
    """Return a function of raw pointers, then scalars.

    Args:
        pointers: Name and dtype of what each points to; the body gets a buffer for each.
        scalars: Name and dtype of each number.
        body: Emits the statements; takes the buffers, then the numbers, by name.
    """
    with IRBuilder() as builder, T.prim_func(private=True):
        T.func_attr({"tirx.noalias": True})
        handles = [T.arg(name, T.handle(dtype)) for name, dtype in pointers]
        numbers = {name: T.arg(name, getattr(T, dtype)()) for name, dtype in scalars}
        buffers = {
            name: T.decl_buffer((ANY,), dtype, data=handle)
            for (name, dtype), handle in zip(pointers, handles, strict=True)
        }
        body(**buffers, **numbers)
    return builder.get()


def loop(count: Any, *, parallel: bool = False) -> Any:
    """Return a frame: what is emitted inside it runs `count` times, the number going up from 0."""
    return T.parallel(0, count) if parallel else T.serial(0, count)


def let(value: Any) -> Any:
    """Compute a value once, here; return its variable."""
    return T.bind(value)


def local(size: int, dtype: str) -> Any:
    """Return a small buffer that only constants index, which LLVM keeps in registers."""
    return T.alloc_buffer((size,), dtype)


def load(buffer: Any, index: Any, lanes: int) -> Any:
    """Return `lanes` neighbouring elements."""
    return buffer[index] if lanes == 1 else buffer[T.ramp(index, 1, lanes)]


def store(buffer: Any, index: Any, value: Any, lanes: int) -> None:
    """Write `lanes` neighbouring elements."""
    T.buffer_store(buffer, value, [index if lanes == 1 else T.ramp(index, 1, lanes)])

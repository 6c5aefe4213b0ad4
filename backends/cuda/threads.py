"""Statements of kernels that are written for threads: launches, shared memory, device functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ..kernels.statements import T


class Launch(ExitStack):
    """Emits inside it what each thread does: `with Launch(blocks, 128) as (x, y, z, thread):`."""

    def __init__(self, blocks: tuple[int, int, int], threads: int) -> None:
        """Take the number of blocks along each axis, and of the threads of a block."""
        super().__init__()
        self._sizes = {f"blockIdx.{axis}": size for axis, size in zip("xyz", blocks, strict=True)}
        self._sizes["threadIdx.x"] = threads

    def __enter__(self) -> Any:
        """Return the variables: the block's number along x, y and z, and the thread's."""
        return [self.enter_context(T.launch_thread(tag, n)) for tag, n in self._sizes.items()]


@contextmanager
def when(condition: Any) -> Iterator[None]:
    """Emit what is inside for threads that meet a condition."""
    with T.If(condition), T.Then():
        yield


def shared(size: int) -> Any:
    """Return bytes of the block's shared memory."""
    return T.alloc_buffer((size,), "uint8", scope="shared")


def registers(size: int, dtype: str) -> Any:
    """Return a thread's own array; constant indices alone keep it in registers."""
    return T.alloc_buffer((size,), dtype, scope="local")


def do(name: str, *arguments: Any) -> None:
    """Call a device function (`device.h`) for what it does."""
    T.evaluate(T.call_extern("void", f"planish_{name}", *arguments))


def get(dtype: str, name: str, *arguments: Any) -> Any:
    """Return what a device function gives."""
    return T.call_pure_extern(dtype, f"planish_{name}", *arguments)


def at(buffer: Any, index: Any) -> Any:
    """Return an address in a buffer."""
    return T.address_of(buffer[index])


def split(value: Any, sizes: Sequence[int]) -> list[Any]:
    """Return the digits of a number that counts the cells of a box, the last axis fastest.

    The first axis may be longer than its size says.
    """
    digits: list[Any] = []
    for size in reversed(sizes[1:]):
        digits.append(T.truncmod(value, size) if size > 1 else T.int32(0))
        value = T.truncdiv(value, size) if size > 1 else value
    return [value, *reversed(digits)]

"""Indexing in float islands, safe whatever the indices are.

torch raises an IndexError where an index lies outside; compiled code has no errors to raise, so an
index outside reads (or writes) the nearest entry instead. It never leaves the tensor's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

Tensor = torch.Tensor
_aten = torch.ops.aten


def _inside(index: Tensor, size: int) -> Tensor:
    """Count negative indices from the end; clamp to the tensor."""
    if index.dtype == torch.bool:
        raise NotImplementedError("indexing by a mask has a size that depends on the data")
    index = index.to(torch.int64)
    return torch.where(index < 0, index + size, index).clamp(0, size - 1)


def _select(x: Tensor, dim: int, index: int) -> Tensor:
    at = index + x.shape[dim] if index < 0 else index
    return _aten.slice.Tensor(x, dim, at, at + 1).squeeze(dim)


def _gather(x: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    del sparse_grad
    return _aten.gather.default(x, dim, index.to(torch.int64).clamp(0, x.shape[dim] - 1))


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    safe = [
        None if index is None else _inside(index, x.shape[axis])
        for axis, index in enumerate(indices)
    ]
    given = [(axis, index) for axis, index in enumerate(safe) if index is not None]
    if len(given) == 1:
        axis, index = given[0]
        taken = _aten.index_select.default(x, axis, index.reshape(-1))
        return taken.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    return _aten.index.Tensor(x, safe)


def _index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Tensor:
    """Rows of the leading axes, numbered, and then one scatter."""
    known = [index for index in indices if index is not None]
    if len(known) != len(indices):
        raise NotImplementedError("index_put with an axis left out")
    safe = [_inside(index, x.shape[axis]) for axis, index in enumerate(known)]
    count = len(safe)
    shape = torch.broadcast_shapes(*[tuple(index.shape) for index in safe])
    number = torch.zeros(shape, dtype=torch.int64)
    for axis, index in enumerate(safe):
        number = number * x.shape[axis] + index
    rest = list(x.shape[count:])
    inner = prod(rest)
    rows = number.reshape(-1, 1).expand(-1, inner)
    updates = values.expand(*shape, *rest).reshape(-1, inner)
    flat = x.reshape(-1, inner)
    target = _aten.scatter_add.default if accumulate else _aten.scatter.src
    return target(flat, 0, rows, updates.to(x.dtype)).reshape(x.shape)


INDEXING: dict[Any, Callable[..., Any]] = {
    _aten.select.int: _select,
    _aten.gather.default: _gather,
    _aten.index.Tensor: _index,
    _aten.index_put.default: _index_put,
}

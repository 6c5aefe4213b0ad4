"""Arithmetic on `Sizes`: entry by entry, on numbers at once and on the open batch by nodes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from .call import Call
from .emitter import OpenSizeError
from .values import Constant, Sizes, Value

Item = int | fx.Node


def sized(call: Call, items: Iterable[Item], scalar: bool = False) -> Sizes | Constant:
    """Return numbers as `Sizes`, or as a constant where none depends on the batch."""
    listed = tuple(items)
    if any(isinstance(item, fx.Node) for item in listed):
        return Sizes(listed, scalar)
    made = torch.tensor(listed, dtype=torch.int64)
    return call.make(made.reshape(()) if scalar else made)


def as_sizes(value: Value | None) -> Sizes | None:
    """Return a value that holds whole numbers on at most one axis as sizes, or None."""
    if isinstance(value, Sizes):
        return value
    if not isinstance(value, Constant) or value.tensor.dim() > 1:
        return None
    if value.tensor.is_floating_point() or value.tensor.dtype == torch.bool:
        return None
    return Sizes(tuple(value.tensor.reshape(-1).tolist()), value.tensor.dim() == 0)


def any_sizes(call: Call) -> bool:
    """Whether some input depends on the open batch as a number."""
    return any(isinstance(value, Sizes) for value in call.inputs)


def product(call: Call, items: Iterable[Item]) -> Item:
    """Return the product of numbers and nodes."""
    total: Item = 1
    for item in items:
        total = combine(call, operator.mul, total, item)
    return total


def combine(call: Call, function: Callable[[Any, Any], Any], a: Item, b: Item) -> Item:
    """Return a function of two numbers or nodes."""
    if isinstance(a, int) and isinstance(b, int):
        return int(function(a, b))
    neutral = 1 if function in (operator.mul, operator.floordiv) else 0
    if b == neutral and isinstance(b, int):
        return a
    if a == neutral and isinstance(a, int) and function in (operator.mul, operator.add):
        return b
    return call.emitter.emit_size(function, a, b)


def arithmetic(call: Call, function: Callable[[Any, Any], Any]) -> Value:
    """Apply a function of two numbers to two inputs, one of which broadcasts."""
    first, second = (as_sizes(call.inputs[index]) for index in range(2))
    if first is None or second is None:
        raise refusal(call)
    count = max(len(first.items), len(second.items))
    left, right = (spread(call, sizes, count) for sizes in (first, second))
    items = [combine(call, function, a, b) for a, b in zip(left, right, strict=True)]
    return sized(call, items, first.scalar and second.scalar)


def spread(call: Call, sizes: Sizes, count: int) -> tuple[Item, ...]:
    """Repeat one number `count` times; several must be as many."""
    if len(sizes.items) not in (1, count):
        raise call.refuse(f"combines {len(sizes.items)} sizes with {count}")
    return sizes.items * count if len(sizes.items) == 1 else sizes.items


def refusal(call: Call) -> OpenSizeError:
    """Return the error that an operator computes on sizes in an unknown way."""
    return OpenSizeError(
        f"{call.operator} computes on sizes that depend on the batch", where=f"node {call.name!r}"
    )

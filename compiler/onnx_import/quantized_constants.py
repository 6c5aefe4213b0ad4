"""Weights that arrive as integers: what stays of their scales when they are moved and stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from .values import Constant, QuantizedConstant

aten = torch.ops.aten
# What moves a tensor's values without changing or mixing them.
MOVES = frozenset(
    {
        aten.permute.default,
        aten.reshape.default,
        aten.flatten.using_ints,
        aten.unsqueeze.default,
        aten.squeeze.dims,
        aten.slice.Tensor,
        aten.select.int,
        aten.index_select.default,
        aten.flip.default,
    }
)


def moved(target: Callable[..., Any], args: Any, options: Any) -> QuantizedConstant | None:
    """Return a moved weight with its scales moved alike; None where `target` does something else.

    Args:
        target: The operator.
        args: Its arguments, constants among them.
        options: Its keyword arguments.
    """
    constants = [leaf for leaf in pytree.tree_leaves((args, options)) if _is_constant(leaf)]
    weights = [leaf for leaf in constants if isinstance(leaf, QuantizedConstant)]
    if target not in MOVES or len(weights) != 1:
        return None
    (weight,) = weights

    def run(part: torch.Tensor) -> torch.Tensor:
        plain = pytree.tree_map_only(
            Constant, lambda c: part if c is weight else c.tensor, (args, options)
        )
        return target(*plain[0], **plain[1])

    tensors = [run(part) for part in (weight.tensor, weight.scale, weight.zero_point)]
    real, scale, zero_point = tensors
    rest = (scale, zero_point, weight.lo, weight.hi)
    return QuantizedConstant(real, weight.name, weight.trainable, *rest)


def _is_constant(value: Any) -> bool:
    return isinstance(value, Constant)


def channel_axis(weight: QuantizedConstant) -> tuple[int | None, torch.Tensor, torch.Tensor] | None:
    """Return (axis, scale, zero point) of a weight: one scale, or one an entry of an axis.

    None where the scales vary in another way.
    """
    rank = weight.scale.dim()
    for axis in (None, *range(rank)):
        at = tuple(slice(None) if index == axis else 0 for index in range(rank))
        shape = [-1 if index == axis else 1 for index in range(rank)]
        scale, zero_point = weight.scale[at], weight.zero_point[at]
        same = (weight.scale == scale.reshape(shape)) & (
            weight.zero_point == zero_point.reshape(shape)
        )
        if bool(same.all()):
            return axis, scale.clone(), zero_point.clone()
    return None

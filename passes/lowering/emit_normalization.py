"""Emits what reads a whole axis: softmax, layer normalization, means and sums."""

from __future__ import annotations

import math

import torch
from torch import fx

from planish.ir.integer.normalization import LAYER_NORM_BITS, LAYER_NORM_LIMIT
from planish.ir.ops import row

from .emission import Emission, NoIntegerForm

_ops = torch.ops.planish
_SOFTMAX_BITS = 23  # exponentials up to 2**23: their conversion to float32 is exact
_OFFSET_LIMIT = 2**22
_EPSILON_LIMIT = 2.0**62
_SUM_LIMIT = 2**23


def softmax(e: Emission) -> fx.Node:
    """softmax_i8: a table of exponentials in as many bits as their sum leaves room for."""
    dim = e.values["dim"]
    length = e.size(e.values["self"], dim)
    bits = min(_SOFTMAX_BITS, math.floor(math.log2((2**31 - 1) / length)))
    distances = torch.arange(256, dtype=torch.float64) * e.x.qparams.scale
    table = torch.round(torch.exp(-distances) * 2.0**bits).to(torch.int32)
    multiplier = float(torch.tensor(1.0 / e.y.scale, dtype=torch.float32))
    stored = e.own_tensor("table", table)
    return e.call(_ops.softmax_i8.default, e.x.node, stored, dim, multiplier, *e.ending())


def layer_norm(e: Emission) -> fx.Node:
    """layer_norm_i8, where its constants fit."""
    values = e.values
    shape = [int(size) for size in values["normalized_shape"]]
    count = math.prod(shape)
    if count > LAYER_NORM_LIMIT:
        raise NoIntegerForm(f"it normalizes {count} values; at most {LAYER_NORM_LIMIT} are exact")
    unit = 2.0**LAYER_NORM_BITS / e.y.scale
    weight, bias = e.constant(values["weight"]), e.constant(values["bias"])
    gain = torch.ones(shape, dtype=torch.float64) if weight is None else weight.double()
    offset = torch.zeros(shape, dtype=torch.float64) if bias is None else bias.double()
    gain, offset = (gain * unit).to(torch.float32), torch.round(offset * unit)
    if not bool(torch.isfinite(gain).all()) or bool((offset.abs() > _OFFSET_LIMIT).any()):
        raise NoIntegerForm("its weight or bias is too large for the scale of its result")
    epsilon = values["eps"] * count**2 / e.x.qparams.scale**2
    if epsilon >= _EPSILON_LIMIT:
        raise NoIntegerForm("its eps is too large for the scale of its input")
    return e.call(
        _ops.layer_norm_i8.default,
        *(e.x.node, e.own_tensor("gain", gain)),
        e.own_tensor("offset", offset.to(torch.int32)),
        *(len(shape), round(epsilon)),
        *e.ending(e.x.qparams.zero_point),
    )


def mean(e: Emission) -> fx.Node:
    """mean_i8, for a mean and for a sum."""
    values = e.values
    x = values["self"]
    dims = [int(axis) for axis in values["dim"] or range(x.meta["val"].dim())]
    count = math.prod(e.size(x, axis) for axis in dims)
    if count > _SUM_LIMIT:
        raise NoIntegerForm(f"it sums {count} values; at most {_SUM_LIMIT} are exact")
    divisor = count if row(e.node).name == "mean" else 1
    ratio = e.x.qparams.scale / (e.y.scale * divisor)
    multiplier = float(torch.tensor(ratio, dtype=torch.float32))
    rest = (dims, values["keepdim"], multiplier)
    return e.call(_ops.mean_i8.default, e.x.node, *rest, *e.ending(e.x.qparams.zero_point))

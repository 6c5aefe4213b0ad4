"""Float operators said in simpler ones, in torch: what TVM's importer lacks or gets wrong.

Each function takes what the operator takes and returns what it returns; torch.export traces it in
the operator's place, so sizes are plain numbers here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F

from .indexing import INDEXING
from .resampling import RESAMPLING
from .sampling import SAMPLING

Tensor = torch.Tensor
_aten = torch.ops.aten


def _promoted(target: Any, *, real: bool = False, count: int = 2) -> Callable[..., Any]:
    """Return an operator whose first `count` operands are cast to their common dtype.

    Args:
        target: The overload.
        real: Whether integers become float32, as in a division.
        count: How many leading arguments are operands.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        operands = list(args[:count])
        dtype = operands[0].dtype if isinstance(operands[0], Tensor) else None
        for other in operands[1:]:
            dtype = torch.result_type(operands[0], other)
        assert dtype is not None
        if real and not dtype.is_floating_point:
            dtype = torch.float32
        operands = [o.to(dtype) if isinstance(o, Tensor) else o for o in operands]
        return target(*operands, *args[count:], **kwargs)

    return call


def _in_float32(target: Any) -> Callable[..., Any]:
    """Return a layer that computes in float32, as TVM's kernels do, and casts its result back."""

    def call(*args: Any, **kwargs: Any) -> Any:
        dtype = args[0].dtype
        if dtype == torch.float64:
            raise NotImplementedError("it computes in float64")
        if dtype != torch.float16:
            return target(*args, **kwargs)
        real = [a.float() if isinstance(a, Tensor) else a for a in args]
        return target(*real, **kwargs).to(dtype)

    return call


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype.is_floating_point:
        return _in_float32(_aten.matmul.default)(a, b)
    if a.dim() == 1 or b.dim() == 1:
        wide = _matmul(a[None] if a.dim() == 1 else a, b[:, None] if b.dim() == 1 else b)
        wide = wide.squeeze(-2) if a.dim() == 1 else wide
        return wide.squeeze(-1) if b.dim() == 1 else wide
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2, dtype=a.dtype)


def _add(a: Tensor, b: Tensor | float, *, alpha: float = 1) -> Tensor:
    scaled = b if alpha == 1 else b * alpha
    return _promoted(_aten.add.Tensor)(a, scaled)


def _sub(a: Tensor, b: Tensor | float, *, alpha: float = 1) -> Tensor:
    scaled = b if alpha == 1 else b * alpha
    return _promoted(_aten.sub.Tensor)(a, scaled)


def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    dtype = torch.result_type(a, b)
    return _aten.where.self(condition, a.to(dtype), b.to(dtype))


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    kept = [t.to(dtype) for t in tensors if tuple(t.shape) != (0,)]
    return kept[0] if len(kept) == 1 else _aten.cat.default(kept, dim)


def _clamp(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Where the bounds cross, the upper one wins; TVM's clip would take the lower."""
    if low is not None and high is not None:
        low = min(low, high)
    return _aten.clamp.default(x, low, high)


def _selu(x: Tensor) -> Tensor:
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return torch.where(x > 0, x * scale, torch.expm1(x) * (alpha * scale))


def _isfinite(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        return torch.ones_like(x, dtype=torch.bool)
    return torch.logical_and(x == x, x.abs() != math.inf)


def _pow(x: Tensor, exponent: float) -> Tensor:
    """Small whole powers are products, as in torch; others a power function."""
    if not x.is_floating_point() and not isinstance(exponent, int):
        x = x.to(torch.float32)
    if exponent == int(exponent) and 1 <= exponent <= 16:
        result, square, left = None, x, int(exponent)
        while left:
            if left & 1:
                result = square if result is None else result * square
            square, left = (square * square if left > 1 else square), left >> 1
        assert result is not None
        return result
    if exponent == 0.5:
        return torch.sqrt(x)
    return _aten.pow.Tensor_Scalar(x, exponent)


def _pow_of_scalar(base: float, x: Tensor) -> Tensor:
    return torch.exp(x * math.log(base)) if base > 0 else _aten.pow.Scalar(base, x)


def _remainder(x: Tensor, y: Tensor | float) -> Tensor:
    """The remainder with the sign of y, as torch computes it; TVM's is x - floor(x / y) * y."""
    if not x.is_floating_point():
        whole = _aten.remainder.Tensor if isinstance(y, Tensor) else _aten.remainder.Scalar
        return whole(x, y)
    rest = torch.fmod(x, y)
    return torch.where(_is_other_sign(rest, y), rest + y, rest)


def _is_other_sign(rest: Tensor, y: Tensor | float) -> Tensor:
    return torch.logical_and(rest != 0, torch.logical_xor(rest < 0, torch.as_tensor(y < 0)))


def _div_in_mode(x: Tensor, y: Tensor | float, *, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode == "floor" and x.is_floating_point():
        return _floor_divide(x, y)
    mode = _aten.div.Tensor_mode if isinstance(y, Tensor) else _aten.div.Scalar_mode
    return mode(x, y, rounding_mode=rounding_mode)


def _floor_divide(x: Tensor, y: Tensor | float) -> Tensor:
    """As torch computes it: a quotient without a rest, to the nearest whole number."""
    if not x.is_floating_point():
        return _aten.floor_divide.default(x, y)
    rest = torch.fmod(x, y)
    quotient = (x - rest) / y
    quotient = torch.where(_is_other_sign(rest, y), quotient - 1, quotient)
    whole = torch.floor(quotient)
    whole = torch.where(quotient - whole > 0.5, whole + 1, whole)
    return torch.where(torch.as_tensor(y == 0), x / y, whole)


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    if training:
        raise NotImplementedError("batch norm in training mode; graph.eval() turns it off")
    del momentum, cudnn_enabled
    factor = torch.rsqrt(variance + eps)
    factor = factor if weight is None else factor * weight
    shape = [1, -1] + [1] * (x.dim() - 2)
    result = (x - mean.reshape(shape)) * factor.reshape(shape)
    return result if bias is None else result + bias.reshape(shape)


def _with_bias_apart(target: Any) -> Callable[..., Any]:
    """Return a convolution that adds its bias as a tensor of the result's rank."""

    def call(x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any) -> Tensor:
        result = _in_float32(target)(x, weight, None, *args)
        if bias is None:
            return result
        return result + bias.reshape([1, -1] + [1] * (result.dim() - 2))

    return call


def _group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    del cudnn_enabled
    grouped = x.reshape(x.shape[0], groups, -1)
    mean = grouped.mean(-1, keepdim=True)
    centered = grouped - mean
    variance = (centered * centered).mean(-1, keepdim=True)
    result = (centered * torch.rsqrt(variance + eps)).reshape(x.shape)
    shape = [1, -1] + [1] * (x.dim() - 2)
    if weight is not None:
        result = result * weight.reshape(shape)
    return result if bias is None else result + bias.reshape(shape)


def _avg_pool2d(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    arguments = (kernel, stride, padding, ceil_mode)
    if divisor_override is None:
        return _aten.avg_pool2d.default(x, *arguments, count_include_pad)
    step, sides = (stride or kernel), []
    # Padded so that every window is whole: then each sum is the average times the window's size.
    sizes = _aten.avg_pool2d.default(x, *arguments).shape[-2:]
    for axis in (1, 0):
        reach = (sizes[axis] - 1) * step[axis] + kernel[axis]
        sides += [padding[axis], max(reach - x.shape[axis - 2] - padding[axis], 0)]
    average = F.avg_pool2d(F.pad(x, sides), list(kernel), list(step))
    return average * (prod(kernel) / divisor_override)


def _conv_transpose3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] = (0, 0, 0),
    output_padding: Sequence[int] = (0, 0, 0),
    groups: int = 1,
    dilation: Sequence[int] = (1, 1, 1),
) -> Tensor:
    """Zeros between the voxels, then a convolution with the flipped kernel."""
    stride, padding, output_padding, dilation = (
        list(v) * (3 // len(v)) for v in (stride, padding, output_padding, dilation)
    )
    into, per_group, *kernel = weight.shape
    n, _, d, h, w = x.shape
    spread = x.reshape(n, into, d, 1, h, 1, w, 1)
    spread = F.pad(spread, [0, stride[2] - 1, 0, 0, 0, stride[1] - 1, 0, 0, 0, stride[0] - 1])
    spread = spread.reshape(n, into, d * stride[0], h * stride[1], w * stride[2])
    sides: list[int] = []
    for axis in (2, 1, 0):
        before = dilation[axis] * (kernel[axis] - 1) - padding[axis]
        sides += [before, before + output_padding[axis] - (stride[axis] - 1)]
    flipped = weight.flip([2, 3, 4]).reshape(groups, into // groups, per_group, *kernel)
    flipped = flipped.transpose(1, 2).reshape(groups * per_group, into // groups, *kernel)
    return F.conv3d(F.pad(spread, sides), flipped, bias, 1, 0, dilation, groups)


def _one_hot(x: Tensor, classes: int = -1) -> Tensor:
    if classes < 0:
        raise NotImplementedError("one_hot without a number of classes depends on the data")
    return (x.unsqueeze(-1) == torch.arange(classes)).to(torch.int64)


def _refused(reason: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(reason)

    return call


_DEPENDS = "the size of its result depends on the data"
_COMPARISONS = [
    getattr(getattr(_aten, name), overload)
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
    for overload in ("Tensor", "Scalar")
]

DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **INDEXING,
    **RESAMPLING,
    **SAMPLING,
    **{target: _promoted(target) for target in _COMPARISONS},
    **{
        target: _promoted(target)
        for target in (
            _aten.mul.Tensor,
            _aten.maximum.default,
            _aten.minimum.default,
            _aten.pow.Tensor_Tensor,
            _aten.fmod.Tensor,
            _aten.fmod.Scalar,
        )
    },
    _aten.remainder.Tensor: _promoted(_remainder),
    _aten.remainder.Scalar: _promoted(_remainder),
    _aten.floor_divide.default: _promoted(_floor_divide),
    _aten.div.Tensor_mode: _promoted(_div_in_mode),
    _aten.add.Tensor: _add,
    _aten.sub.Tensor: _sub,
    _aten.div.Tensor: _promoted(_aten.div.Tensor, real=True),
    _aten.where.self: _where,
    _aten.cat.default: _cat,
    _aten.clamp.default: _clamp,
    _aten.selu.default: _selu,
    _aten.isfinite.default: _isfinite,
    _aten.erfc.default: lambda x: 1 - torch.erf(x),
    _aten.exp2.default: lambda x: torch.exp(x * math.log(2)),
    _aten.pow.Tensor_Scalar: _pow,
    _aten.pow.Scalar: _pow_of_scalar,
    _aten.group_norm.default: _group_norm,
    _aten.avg_pool2d.default: _avg_pool2d,
    _aten.conv_transpose3d.input: _in_float32(_conv_transpose3d),
    _aten.matmul.default: _matmul,
    _aten.linear.default: _in_float32(_aten.linear.default),
    **{
        target: _with_bias_apart(target)
        for target in (
            _aten.conv2d.default,
            _aten.conv3d.default,
            _aten.conv_transpose2d.input,
        )
    },
    _aten.batch_norm.default: _batch_norm,
    _aten.one_hot.default: _one_hot,
    _aten.nonzero.default: _refused(_DEPENDS),
    _aten.masked_select.default: _refused(_DEPENDS),
}

"""Converters of layers with weights: convolutions, Gemm, MatMul, batch norm, dropout."""

from __future__ import annotations

from typing import Any

import torch

from ..call import Call
from ..registry import converts
from ..values import Constant, Operand, Value
from .elementwise import add, cast, multiply
from .windows import Windows, crop_or_pad, pad_ends, windows

aten = torch.ops.aten


@converts("Conv")
def convert_conv(call: Call) -> Value:
    x, weight = call.operand(0), call.parameter(1)
    bias = call.parameter(2) if call.has(2) else None
    rank = call.rank(weight) - 2
    if rank < 1 or rank > 3 or call.rank(x) != rank + 2:
        raise call.refuse(f"has {rank} spatial axes; 1 to 3 are supported")
    kernel = [call.fixed(weight, axis + 2) for axis in range(rank)]
    _check_kernel(call, kernel)
    found = windows(call, x, kernel)
    padding, x = _symmetric(call, x, found)
    if rank == 1:
        x, weight = _two_dimensional(call, x), _two_dimensional(call, weight)
        found, padding = found.two_dimensional(), [0, *padding]
    target = aten.conv3d.default if rank == 3 else aten.conv2d.default
    groups = call.integer("group", 1)
    y = call.emit(target, x, weight, bias, found.strides, padding, found.dilations, groups)
    return call.emit(aten.squeeze.dims, y, [2]) if rank == 1 else y


def _check_kernel(call: Call, kernel: list[int]) -> None:
    stated = call.integers("kernel_shape", kernel)
    if stated != kernel:
        raise call.refuse(f"has a kernel of {kernel}, not {stated} as it says")


def _symmetric(call: Call, x: Operand, found: Windows) -> tuple[list[int], Operand]:
    """Return the padding that the layer does itself; the rest is done before it, with zeros."""
    if found.begins == found.ends and min(found.begins, default=0) >= 0:
        return found.begins, x
    return [0] * len(found.begins), pad_ends(call, x, found.begins, found.ends, 0.0)


def _two_dimensional(call: Call, operand: Operand) -> Operand:
    return call.emit(aten.unsqueeze.default, operand, 2)


@converts("ConvTranspose")
def convert_conv_transpose(call: Call) -> Value:
    x, weight = call.operand(0), call.parameter(1)
    bias = call.parameter(2) if call.has(2) else None
    rank = call.rank(weight) - 2
    if rank < 1 or rank > 3 or call.rank(x) != rank + 2:
        raise call.refuse(f"has {rank} spatial axes; 1 to 3 are supported")
    kernel = [call.fixed(weight, axis + 2) for axis in range(rank)]
    _check_kernel(call, kernel)
    found, extra = _transposed_windows(call, x, kernel)
    groups = call.integer("group", 1)
    if rank == 1:
        x, weight = _two_dimensional(call, x), _two_dimensional(call, weight)
        found, extra = found.two_dimensional(), [0, *extra]
    target: Any = aten.conv_transpose3d.input if rank == 3 else aten.conv_transpose2d.input
    # What torch can't pad by itself is cut off, or added, behind the layer.
    own = [
        after + begin - end
        for after, begin, end in zip(extra, found.begins, found.ends, strict=True)
    ]
    most = [max(s, d) for s, d in zip(found.strides, found.dilations, strict=True)]
    simple = all(0 <= o < m for o, m in zip(own, most, strict=True)) and min(found.begins) >= 0
    if simple:
        y = call.emit(
            target, x, weight, bias, found.strides, found.begins, own, groups, found.dilations
        )
    else:
        zeros = [0] * len(own)
        y = call.emit(target, x, weight, None, found.strides, zeros, zeros, groups, found.dilations)
        ends = [after - end for after, end in zip(extra, found.ends, strict=True)]
        y = crop_or_pad(call, y, [-begin for begin in found.begins], ends)
        if bias is not None:
            y = add(call, y, call.emit(aten.reshape.default, bias, [1, -1, *[1] * len(own)]))
    return call.emit(aten.squeeze.dims, y, [2]) if rank == 1 else y


def _transposed_windows(call: Call, x: Operand, kernel: list[int]) -> tuple[Windows, list[int]]:
    """Return windows and what is added at the ends (output_padding), from a stated output shape."""
    rank = len(kernel)
    strides = call.integers("strides", [1] * rank)
    dilations = call.integers("dilations", [1] * rank)
    extra = call.integers("output_padding", [0] * rank)
    pads = call.integers("pads", [0] * 2 * rank)
    if not len(strides) == len(dilations) == len(extra) == len(pads) // 2 == rank:
        raise call.refuse("has strides, dilations or pads for another number of axes")
    if min([*strides, *dilations, *kernel]) < 1:
        raise call.refuse("has a stride, dilation or kernel below 1")
    auto = call.text("auto_pad", "NOTSET")
    begins, ends = pads[:rank], pads[rank:]
    shape = call.integers("output_shape") if "output_shape" in call.attributes else None
    if shape is not None and len(shape) != rank:
        shape = shape[-rank:]
    if auto in ("SAME_UPPER", "SAME_LOWER") and shape is None:
        shape = [call.fixed(x, axis + 2) * strides[axis] for axis in range(rank)]
    if shape is None:
        if auto == "VALID":
            begins, ends = [0] * rank, [0] * rank
        return Windows(kernel, strides, dilations, begins, ends), extra
    for axis in range(rank):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        full = strides[axis] * (call.fixed(x, axis + 2) - 1) + extra[axis] + reach
        total = full - shape[axis]
        if total < 0:
            # The output is longer than what the layer computes: zeros at its end.
            begins[axis], ends[axis], extra[axis] = 0, 0, extra[axis] - total
            continue
        half = total // 2
        upper = auto == "SAME_UPPER"
        begins[axis] = half if upper else total - half
        ends[axis] = total - begins[axis]
    return Windows(kernel, strides, dilations, begins, ends), extra


@converts("Gemm", since=7)
def convert_gemm(call: Call) -> Value:
    a, b = call.operand(0), call.parameter(1)
    if call.rank(a) != 2 or call.rank(b) != 2:
        raise call.refuse("needs two matrices")
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    if call.flag("transA"):
        a = call.emit(aten.permute.default, a, [1, 0])
    bias = call.parameter(2) if call.has(2) and beta else None
    if bias is not None and beta != 1:
        bias = call.emit(aten.mul.Tensor, bias, beta)
    whole = call.dtype(a).is_floating_point
    if isinstance(b, Constant) and whole:
        weight = b if call.flag("transB") else call.emit(aten.permute.default, b, [1, 0])
        weight = weight if alpha == 1 else call.emit(aten.mul.Tensor, weight, alpha)
        width = call.fixed(weight, 0)
        row = _as_row(call, bias, width)
        y = call.emit(aten.linear.default, a, weight, row)
        return y if bias is None or row is not None else add(call, y, bias)
    if call.flag("transB"):
        b = call.emit(aten.permute.default, b, [1, 0])
    y = call.emit(aten.matmul.default, a, b)
    y = y if alpha == 1 else call.emit(aten.mul.Tensor, y, alpha)
    return y if bias is None else cast(call, add(call, y, bias), call.dtype(a))


def _as_row(call: Call, bias: Operand | None, width: int) -> Constant | None:
    """Return a constant bias as one row of a linear layer, if it is one."""
    if not isinstance(bias, Constant):
        return None
    shape = list(bias.tensor.shape)
    if shape == [width]:
        return bias
    if shape == [1, width]:
        return call.emit(aten.reshape.default, bias, [width])
    if bias.tensor.numel() == 1:
        return call.emit(aten.repeat.default, call.emit(aten.reshape.default, bias, [1]), [width])
    return None


@converts("MatMul")
def convert_matmul(call: Call) -> Value:
    a, b = call.operand(0), call.operand(1)
    if not call.dtype(a).is_floating_point or call.rank(a) < 2:
        return call.emit(aten.matmul.default, a, b)
    if isinstance(b, Constant) and b.tensor.dim() == 2 and not isinstance(a, Constant):
        weight = call.emit(aten.permute.default, call.parameter(1), [1, 0])
        return call.emit(aten.linear.default, a, weight, None)
    return call.emit(aten.matmul.default, a, b)


@converts("BatchNormalization", since=7)
def convert_batch_norm(call: Call) -> Any:
    if not call.flag("spatial", True):
        raise call.refuse("has a statistic a position (spatial=0)")
    x, scale, bias = call.operand(0), call.parameter(1), call.parameter(2)
    mean, variance = call.buffer(3), call.buffer(4)
    epsilon, momentum = call.number("epsilon", 1e-5), call.number("momentum", 0.9)
    if call.flag("training_mode"):
        return _training_norm(call, x, [scale, bias, mean, variance], epsilon, momentum)
    if any(call.wants(index) for index in range(1, 5)):
        raise call.refuse("gives its statistics, as only training needs")
    dtype = call.dtype(x)
    parameters = [cast(call, value, dtype) for value in (scale, bias, mean, variance)]
    return call.emit(aten.batch_norm.default, x, *parameters, False, 1 - momentum, epsilon, False)


def _training_norm(
    call: Call, x: Operand, parameters: list[Operand], epsilon: float, momentum: float
) -> list[Value]:
    """Normalize by the statistics of the batch, and give the running ones."""
    scale, bias, mean, variance = parameters
    axes = [axis for axis in range(call.rank(x)) if axis != 1]
    shape = [1, -1, *[1] * (call.rank(x) - 2)]
    average = call.emit(aten.mean.dim, x, axes, True)
    centred = call.emit(aten.sub.Tensor, x, average)
    spread = call.emit(aten.mean.dim, call.emit(aten.mul.Tensor, centred, centred), axes, True)
    inverse = call.emit(aten.rsqrt.default, call.emit(aten.add.Tensor, spread, epsilon))
    y = call.emit(aten.mul.Tensor, centred, inverse)
    y = multiply(call, y, call.emit(aten.reshape.default, scale, shape))
    y = add(call, y, call.emit(aten.reshape.default, bias, shape))
    running: list[Value] = []
    for old, new in ((mean, average), (variance, spread)):
        flat = call.emit(aten.reshape.default, new, [-1])
        kept = call.emit(aten.mul.Tensor, old, momentum)
        running.append(add(call, kept, call.emit(aten.mul.Tensor, flat, 1 - momentum)))
    return [y, *running]


@converts("Dropout")
def convert_dropout(call: Call) -> list[Value | None]:
    """In inference: nothing; a mask that is asked for lets everything pass."""
    x = call.operand(0)
    if call.has(2) and call.opset >= 12 and bool(call.constant(2).reshape(-1)[0]):
        ratio = call.real(1) if call.has(1) else 0.5
        if ratio:
            raise call.refuse("drops values at random (training_mode)")
    mask = None
    if call.wants(1):
        same = call.emit(aten.eq.Tensor, x, x)
        nan = call.emit(aten.ne.Tensor, x, x)
        mask = call.emit(aten.logical_or.default, same, nan)
    ratio = _dropout_ratio(call)
    if ratio is None or isinstance(x, Constant) or not call.dtype(x).is_floating_point:
        return [x, mask]
    return [call.emit(aten.dropout.default, x, ratio, False), mask]


def _dropout_ratio(call: Call) -> float | None:
    if call.opset < 12:
        return min(max(call.number("ratio", 0.5), 0.0), 1.0)
    if not call.has(1):
        return 0.5
    return min(max(float(call.real(1)), 0.0), 1.0) if call.known(1) else None

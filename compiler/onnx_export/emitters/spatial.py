"""Pooling, interpolation and padding of images [n, channels, height, width]."""

from __future__ import annotations

import numpy as np

from planish.ir.ops import pair, row

from ..call import Call
from ..registry import emits


def _window(call: Call) -> dict[str, object]:
    if len(call.shape("self")) != 4:
        raise call.refused("of one sample without a batch has no ONNX form")
    kernel, padding = list(pair(call["kernel_size"])), list(pair(call["padding"]))
    return {
        "kernel_shape": kernel,
        "strides": list(pair(call["stride"] or call["kernel_size"])),
        "pads": padding + padding,
        "ceil_mode": int(call["ceil_mode"]),
    }


@emits("max_pool2d")
def max_pool(call: Call) -> str:
    """Write MaxPool."""
    return call.op(
        "MaxPool", call.value("self"), dilations=list(pair(call["dilation"])), **_window(call)
    )


@emits("avg_pool2d")
def average_pool(call: Call) -> str:
    """Write AveragePool; a divisor of the user's own as a factor."""
    window = _window(call)
    # Counting padding makes no difference where there is none; then it is left unsaid.
    padded = any(pair(call["padding"]))
    divisor = call["divisor_override"]
    count = int(padded and (call["count_include_pad"] or divisor is not None))
    if divisor is not None and call["ceil_mode"]:
        raise call.refused("with a divisor and ceil_mode has no ONNX form")
    pooled = call.op("AveragePool", call.value("self"), count_include_pad=count, **window)
    if divisor is None:
        return pooled
    area = float(np.prod(pair(call["kernel_size"])))
    return call.op("Mul", pooled, call.number(area / divisor))


@emits("adaptive_avg_pool2d")
def adaptive_average_pool(call: Call) -> str:
    """Write GlobalAveragePool; equal windows as AveragePool."""
    sizes, wanted = call.shape("self")[-2:], pair(call["output_size"])
    if wanted == (1, 1):
        return call.op("GlobalAveragePool", call.value("self"))
    if None in sizes or any(int(s or 0) % w for s, w in zip(sizes, wanted, strict=True)):
        raise call.refused(f"of {sizes} to {list(wanted)} has windows of several sizes")
    window = [int(s or 0) // w for s, w in zip(sizes, wanted, strict=True)]
    return call.op("AveragePool", call.value("self"), kernel_shape=window, strides=window)


@emits("upsample_nearest2d", "resize")
def resize(call: Call) -> str:
    """Write Resize, nearest or linear, with torch's rule for coordinates."""
    x, before = call.value("self"), call.shape("self")
    after = [int(size) for size in call["output_size"]]
    if row(call.node).name == "resize":
        rule = "align_corners" if call["align_corners"] else "half_pixel"
        attributes = {"mode": "linear", "coordinate_transformation_mode": rule}
    else:
        attributes = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
    pairs = list(zip(before[-2:], after, strict=True))
    told = [call["scales_h"], call["scales_w"]]
    if told != [None, None] or all(size and wanted % size == 0 for size, wanted in pairs):
        # Scales that are told say where pixels lie; the sizes alone would say it differently.
        factors = [
            scale or wanted / int(size or 1)
            for scale, (size, wanted) in zip(told, pairs, strict=True)
        ]
        scales = np.array([1, 1, *factors], np.float32)
        reached = [
            int(np.float32(size) * s) for s, (size, _) in zip(scales[2:], pairs, strict=True)
        ]
        if reached != after:
            raise call.refused(f"scales by {factors}, which float32 rounds to another size")
        name = call.writer.constant(f"{call.node.name}_scales", scales)
        return call.op("Resize", x, "", name, **attributes)
    if call.opset >= 18:
        return call.op("Resize", x, "", "", call.integers(after), axes=[2, 3], **attributes)
    leading = call.op("Shape", x, start=0, end=2)
    sizes = call.op("Concat", leading, call.integers(after), axis=0)
    return call.op("Resize", x, "", "", sizes, **attributes)


_MODES = {"pad": "constant", "reflection_pad2d": "reflect", "replication_pad2d": "edge"}


@emits(*_MODES)
def pad(call: Call) -> str:
    """Write Pad; torch counts axes from the last, ONNX from the first."""
    mode = _MODES[row(call.node).name]
    amounts = [int(amount) for amount in (call["pad"] if mode == "constant" else call["padding"])]
    rank = len(call.shape("self"))
    before, after = [0] * rank, [0] * rank
    for axis in range(len(amounts) // 2):
        before[-1 - axis], after[-1 - axis] = amounts[2 * axis : 2 * axis + 2]
    operands = [call.value("self"), call.integers(before + after)]
    if mode == "constant":
        operands.append(call.number(call["value"]))
    return call.op("Pad", *operands, mode=mode)

"""The inputs of an ONNX model as input specifications."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from math import prod

import onnx

from planish.ir.errors import ModelError, OperatorError
from planish.ir.signature import InputSpec

from .tensors import torch_dtype

# Of one input: half a gigabyte of float32 for one sample.
MOST_ENTRIES = 1 << 27


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that a caller gives: those that no initializer stands for."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def input_specs(
    graph: onnx.GraphProto,
    shapes: Mapping[str, Iterable[int | None]],
    skipped: Container[str] = (),
) -> list[InputSpec]:
    """Return the specification of each input.

    Args:
        graph: The ONNX graph.
        shapes: Sizes by input name; None is an open batch on axis 0.
        skipped: Inputs to leave out.

    Raises:
        ModelError: A name that is no input, a shape that doesn't fit the model's, or an open size
            beside axis 0.
        OperatorError: An input that is no tensor, or of an unsupported element type.
    """
    values = real_inputs(graph)
    names = [value.name for value in values]
    for name in shapes:
        if name not in names:
            raise ModelError(f"no input is named {name!r}", cure=f"the inputs are {names}")
    return [_spec(value, shapes.get(value.name)) for value in values if value.name not in skipped]


def open_batch(value: onnx.ValueInfoProto) -> bool:
    """Whether the model leaves axis 0 of an input open."""
    sizes = _sizes(value)
    return bool(sizes) and sizes[0] is None


def _spec(value: onnx.ValueInfoProto, shape: Iterable[int | None] | None) -> InputSpec:
    name = value.name
    if value.type.WhichOneof("value") != "tensor_type":
        kind = (value.type.WhichOneof("value") or "nothing").removesuffix("_type")
        raise OperatorError(f"input {name!r} is no tensor: {kind}")
    dtype = torch_dtype(value.type.tensor_type.elem_type, f"input {name!r}")
    known = _sizes(value)
    if shape is None:
        if known is None:
            raise ModelError(
                f"the model doesn't say the shape of its input {name!r}",
                cure=f"give it: shapes={{{name!r}: (1, 3, 224, 224)}}",
            )
        sizes = known
    else:
        sizes = [None if size is None else int(size) for size in shape]
        _check_fits(value, sizes, known)
    for axis, size in enumerate(sizes):
        if size is None and axis:
            label = value.type.tensor_type.shape.dim[axis].dim_param if known else ""
            raise ModelError(
                f"input {name!r} has an open size on axis {axis}{label and f' ({label})'}",
                cure=f"give its shape: shapes={{{name!r}: {_example(sizes)}}}, or --input-shape",
            )
    if (
        prod(max(size or 1, 1) for size in sizes) > MOST_ENTRIES
        or min(s or 0 for s in [0, *sizes]) < 0
    ):
        raise ModelError(f"input {name!r} has the impossible shape {sizes}")
    return InputSpec(name, tuple(sizes), dtype)


def _sizes(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """Return the sizes that the model states, None for open ones; None where it states no shape.

    A size below zero is how some exporters write an open one.
    """
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [
        int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value >= 0 else None
        for dim in tensor.shape.dim
    ]


def _check_fits(
    value: onnx.ValueInfoProto, sizes: list[int | None], known: list[int | None] | None
) -> None:
    fits = known is None or (
        len(sizes) == len(known)
        and all(k is None or s is None or s == k for s, k in zip(sizes, known, strict=True))
    )
    if not fits:
        raise ModelError(
            f"input {value.name!r} has the shape {_text(known)} in the model, not {_text(sizes)}"
        )


def _text(sizes: list[int | None] | None) -> str:
    """Return sizes as "? x 3 x 48 x 192": an open one has a question mark."""
    return " x ".join("?" if size is None else str(size) for size in sizes or ()) or "scalar"


def _example(sizes: list[int | None]) -> tuple[int, ...]:
    return tuple(
        size if size is not None else (224 if axis else 1) for axis, size in enumerate(sizes)
    )

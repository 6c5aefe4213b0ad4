"""What a graph takes: the specification of each input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .errors import DataError


@dataclass(frozen=True)
class InputSpec:
    """One input of a graph.

    Attributes:
        name: The model's argument name.
        shape: Sizes; None is the batch size left open at capture.
        dtype: Element type.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype

    def __str__(self) -> str:
        sizes = ", ".join("N" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {dtype_label(self.dtype)}[{sizes}]"


_LABELS = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "b1",
}


def dtype_label(dtype: torch.dtype) -> str:
    """Return the short name of a dtype in IR text: torch.float32 -> "f32"."""
    return _LABELS.get(dtype, dtype_name(dtype))


def dtype_name(dtype: torch.dtype) -> str:
    """Return NumPy's name of a dtype: torch.float32 -> "float32"."""
    return str(dtype).removeprefix("torch.")


def check_input(spec: InputSpec, value: Any) -> torch.Tensor:
    """Return `value` as a tensor that fits the spec, or raise DataError."""
    try:
        tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"input {spec.name!r} is not an array: {error}") from error
    if tensor.dtype != spec.dtype:
        raise DataError(
            f"input {spec.name!r} has dtype {dtype_label(tensor.dtype)}, expected {spec}",
            cure="convert it before the call",
        )
    fits = len(tensor.shape) == len(spec.shape) and all(
        want is None or want == have for want, have in zip(spec.shape, tensor.shape, strict=True)
    )
    if not fits:
        raise DataError(f"input {spec.name!r} has shape {list(tensor.shape)}, expected {spec}")
    return tensor

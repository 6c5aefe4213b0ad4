"""What a graph takes and returns: input specifications and the nesting of its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .errors import DataError

# How outputs are nested, as plain JSON: an int is the index of a flat output; a list is
# ["tuple" | "list", [children]] or ["dict", [[key, child], ...]].
Structure = Any


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
    return _LABELS.get(dtype, str(dtype).removeprefix("torch."))


def flatten_structure(value: Any, flat: list[Any]) -> Structure:
    """Append the leaves of a nested output to `flat` and return how they were nested."""
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, [flatten_structure(child, flat) for child in value]]
    if isinstance(value, dict):
        return [
            "dict",
            [[str(key), flatten_structure(child, flat)] for key, child in value.items()],
        ]
    flat.append(value)
    return len(flat) - 1


def nest_structure(structure: Structure, flat: list[Any]) -> Any:
    """Rebuild a nested output from its flat leaves: the inverse of `flatten_structure`."""
    if isinstance(structure, int):
        return flat[structure]
    kind, children = structure
    if kind == "dict":
        return {key: nest_structure(child, flat) for key, child in children}
    values = [nest_structure(child, flat) for child in children]
    return tuple(values) if kind == "tuple" else values


def bind_arguments(
    specs: list[InputSpec], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Any]:
    """Order positional and named arguments as the specs are, with one clear error each."""
    names = [spec.name for spec in specs]
    if len(args) > len(specs):
        raise DataError(f"{len(args)} inputs given, the model takes {len(specs)}: {names}")
    bound = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in names:
            raise DataError(f"no input is named {name!r}", cure=f"the model's inputs are {names}")
        if name in bound:
            raise DataError(f"input {name!r} was given twice")
        bound[name] = value
    missing = [name for name in names if name not in bound]
    if missing:
        raise DataError(f"{len(bound)} inputs given, the model also takes {missing}")
    return [bound[name] for name in names]


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

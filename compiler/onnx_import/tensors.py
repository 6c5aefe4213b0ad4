"""ONNX tensors as torch tensors: element types, lengths, external data."""

from __future__ import annotations

from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
import torch
from onnx import TensorProto

from planish.ir.errors import ModelError, OperatorError
from planish.ir.signature import dtype_name

# ONNX element type -> (torch's, the field that holds values which are not raw).
_TYPES: dict[int, tuple[torch.dtype, str]] = {
    TensorProto.FLOAT: (torch.float32, "float_data"),
    TensorProto.DOUBLE: (torch.float64, "double_data"),
    TensorProto.FLOAT16: (torch.float16, "int32_data"),
    TensorProto.BFLOAT16: (torch.bfloat16, "int32_data"),
    TensorProto.BOOL: (torch.bool, "int32_data"),
    TensorProto.UINT8: (torch.uint8, "int32_data"),
    TensorProto.INT8: (torch.int8, "int32_data"),
    TensorProto.UINT16: (torch.uint16, "int32_data"),
    TensorProto.INT16: (torch.int16, "int32_data"),
    TensorProto.UINT32: (torch.uint32, "uint64_data"),
    TensorProto.INT32: (torch.int32, "int32_data"),
    TensorProto.UINT64: (torch.uint64, "uint64_data"),
    TensorProto.INT64: (torch.int64, "int64_data"),
}
# Types whose bits numpy holds under another name.
_BITS = {torch.bfloat16: np.dtype(np.uint16)}
_SPELLED = {torch.float16: np.dtype(np.uint16), torch.bfloat16: np.dtype(np.uint16)}


def torch_dtype(element_type: int, where: str) -> torch.dtype:
    """Return the torch dtype of an ONNX element type.

    Raises:
        OperatorError: torch can't compute with it: strings, complex numbers, 4- and 8-bit floats.
    """
    if element_type not in _TYPES:
        raise OperatorError(
            f"element type {type_name(element_type)} is not supported",
            where=where,
            cure="supported are float32, float64, float16, bfloat16, bool and the integers of "
            "8 to 64 bits",
        )
    return _TYPES[element_type][0]


def onnx_type(dtype: torch.dtype) -> int:
    """Return the ONNX element type of a torch dtype."""
    return next(number for number, (known, _) in _TYPES.items() if known == dtype)


def type_name(element_type: int) -> str:
    """Return the name of an ONNX element type, or its number where it has none."""
    names = {number: name for name, number in TensorProto.DataType.items()}
    return names.get(element_type, str(element_type))


def tensor_from_proto(proto: onnx.TensorProto, where: str, folder: Path | None) -> torch.Tensor:
    """Return the values of an ONNX tensor; external data only from below `folder`.

    Raises:
        ModelError: The data doesn't fit the shape, or lies outside the model's folder.
        OperatorError: An element type that torch doesn't have.
    """
    dtype = torch_dtype(proto.data_type, where)
    shape = [int(size) for size in proto.dims]
    if any(size < 0 for size in shape):
        raise ModelError(f"a tensor has the impossible shape {shape}", where=where)
    if proto.HasField("segment"):
        raise ModelError("a tensor is stored in segments", where=where, cure="save the model anew")
    count = prod(shape)
    stored = _BITS.get(dtype) or np.dtype(dtype_name(dtype))
    if proto.data_location == TensorProto.EXTERNAL:
        values = np.frombuffer(_external(proto, count * stored.itemsize, where, folder), stored)
    elif proto.HasField("raw_data"):
        _check_length(len(proto.raw_data), count * stored.itemsize, "bytes", shape, where)
        values = np.frombuffer(proto.raw_data, stored)
    else:
        values = _typed_values(proto, dtype, count, shape, where)
    tensor = torch.from_numpy(values.reshape(shape).copy())
    return tensor.view(dtype) if tensor.dtype != dtype else tensor


def _typed_values(
    proto: onnx.TensorProto, dtype: torch.dtype, count: int, shape: list[int], where: str
) -> np.ndarray:
    values = getattr(proto, _TYPES[proto.data_type][1])
    _check_length(len(values), count, "values", shape, where)
    spelled = _SPELLED.get(dtype) or np.dtype(dtype_name(dtype))
    held = np.array(values, np.float64 if spelled.kind == "f" else None)
    if not held.size:
        return np.zeros(count, spelled)
    made = np.array(values, spelled) if spelled.kind == "f" else held.astype(spelled)
    return made.view(np.float16) if dtype is torch.float16 else made


def _check_length(found: int, wanted: int, unit: str, shape: list[int], where: str) -> None:
    if found != wanted:
        raise ModelError(
            f"a tensor of shape {shape} has {found} {unit}, not {wanted}",
            where=where,
            cure="the file is damaged; export the model again",
        )


def _external(proto: onnx.TensorProto, length: int, where: str, folder: Path | None) -> bytes:
    """Read a tensor's bytes from a file in the model's folder."""
    entries = {entry.key: entry.value for entry in proto.external_data}
    location = entries.get("location", "")
    path = _inside(location, where, folder)
    try:
        offset = int(entries.get("offset", "0") or 0)
        written = int(entries.get("length", length) or length)
    except ValueError as error:
        raise ModelError(f"external data at {location!r}: {error}", where=where) from error
    size = path.stat().st_size
    _check_length(written, length, "bytes", list(proto.dims), where)
    if offset < 0 or offset + length > size:
        raise ModelError(
            f"external data {location!r} ends at byte {size}, before the tensor does", where=where
        )
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _inside(location: str, where: str, folder: Path | None) -> Path:
    """Return the file of external data; only a plain file below the model's folder will do."""
    if folder is None:
        raise ModelError(
            "a model in memory refers to external data",
            where=where,
            cure="give the path of the model, or load it with onnx.load, which reads the data",
        )
    outside = ModelError(
        f"external data {location!r} is not a file below the model's folder",
        where=where,
        cure="put it beside the model",
    )
    parts = PurePosixPath(location).parts
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute()
    if not parts or absolute or ".." in parts or "\\" in location or "\0" in location:
        raise outside
    try:
        path = (folder / location).resolve()
        found = path.is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links
        raise outside from error
    if not found:
        raise outside
    return path

"""What compiled networks take: arrays that fit, and anything that becomes one without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.ir.errors import DataError


def fit_array(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an input as a contiguous, writable array.

    Args:
        name: The input's, for errors.
        value: A NumPy array, or anything with DLPack or the array interface.
        shape: What it must have.
        dtype: Likewise.

    Raises:
        DataError: It is no array, or has another shape or dtype.
    """
    array = value if type(value) is np.ndarray else _as_array(name, value)
    if array.shape != shape or array.dtype != dtype:
        raise DataError(
            f"input {name!r} is {array.dtype}{list(array.shape)}, expected {dtype}{list(shape)}",
            cure="the batch size was fixed at compile time"
            if array.shape[1:] == shape[1:] and array.dtype == dtype
            else None,
        )
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable else array.copy(order="C")


def _as_array(name: str, value: Any) -> NDArray[Any]:
    """Return anything with DLPack or the array interface as an array; numbers are refused."""
    try:
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        if hasattr(value, "__array__"):
            return np.asarray(value)
    except (RuntimeError, TypeError, ValueError, BufferError) as error:
        raise DataError(f"input {name!r} can't be read as an array: {error}") from error
    raise DataError(
        f"input {name!r} is a {type(value).__name__}",
        cure="give a NumPy array, or anything with DLPack",
    )

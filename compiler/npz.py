"""Reading .npz and .npy files; needs NumPy only, since compiled artifacts run without torch."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.ir.errors import DataError


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file by name, or that of an .npy file under "input".

    Raises:
        DataError: The file can't be read, is damaged, empty, or holds pickled objects.
    """
    where = str(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"input": loaded}
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise DataError("no such file", where=where) from error
    except OSError as error:
        raise DataError(f"can't read it: {error.strerror or error}", where=where) from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            "not a .npz file of plain arrays, or a damaged one",
            where=where,
            cure="write it with numpy.savez",
        ) from error
    if not arrays:
        raise DataError("the file holds no arrays", where=where)
    return arrays

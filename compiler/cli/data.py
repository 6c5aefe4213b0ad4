"""Data named on the command line: an .npz file, or a folder of images and its preprocessing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from planish.ir.errors import OptionError

DATA_HELP = "An .npz file (arrays by input name, 'labels'), or a folder of images."
SIZE_HELP = "Images: height x width to resize to, such as 224x224."
MEAN_HELP = "Images: mean of each channel (of 0..1), such as 0.485,0.456,0.406."
STD_HELP = "Images: standard deviation of each channel, such as 0.229,0.224,0.225."


def load_data(
    path: Path | None, batch: int, size: str | None, mean: str | None, std: str | None
) -> Iterable[Any] | None:
    """Return the batches at `path`.

    Raises:
        DataError: The data can't be read.
        OptionError: The preprocessing is missing or can't be read.
    """
    if path is None:
        return None
    from ..data_sources import ImageFolder, NpzBatches

    if not path.is_dir():
        return NpzBatches(path, batch=batch)
    if size is None or mean is None or std is None:
        raise OptionError(
            "a folder of images needs a stated preprocessing",
            where=str(path),
            cure="give --size, --mean and --std",
        )
    return ImageFolder(path, size=_size(size), mean=_numbers(mean), std=_numbers(std), batch=batch)


def _size(text: str) -> tuple[int, int]:
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise OptionError(f"can't read the size {text!r}", cure="write 224x224")
    return int(parts[0]), int(parts[1])


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(f"can't read the numbers {text!r}", cure="write 0.5,0.5,0.5") from error

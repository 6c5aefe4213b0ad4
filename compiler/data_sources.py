"""Where data comes from: .npz files, folders of images, or any iterable of batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from planish.ir.errors import DataError

from .npz import read_npz

LABELS = "labels"
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}


class NpzBatches:
    """Batches of an .npz file: arrays by input name, labels under "labels".

    A file with a single array beside the labels fits a model with one input, whatever its name.

    Args:
        path: The file; each array has one entry a sample on axis 0.
        batch: Samples a batch; the last one may be smaller.
        limit: Use the first samples only.

    Raises:
        DataError: The file can't be read, is no .npz, or its arrays differ in length.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, batch: int = 64, limit: int | None = None
    ) -> None:
        self.path = Path(path)
        self.batch = _positive(batch, "batch")
        self.limit = None if limit is None else _positive(limit, "limit")
        self.count = self._common_length()

    def __len__(self) -> int:
        return -(-self.count // self.batch)

    def __iter__(self) -> Iterator[Any]:
        inputs = {name: array for name, array in self.arrays.items() if name != LABELS}
        labels = self.arrays.get(LABELS)
        for start in range(0, self.count, self.batch):
            rows = slice(start, min(start + self.batch, self.count))
            if len(inputs) == 1:
                (array,) = inputs.values()
                yield array[rows] if labels is None else (array[rows], labels[rows])
            else:
                yield {name: array[rows] for name, array in self.arrays.items()}

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The file's arrays by name."""
        return read_npz(self.path)

    def _common_length(self) -> int:
        lengths = {name: len(a) if a.ndim else None for name, a in self.arrays.items()}
        if len(set(lengths.values())) != 1 or None in lengths.values():
            raise DataError(
                f"the arrays have different numbers of samples: {lengths}", where=str(self.path)
            )
        (count,) = set(lengths.values())
        if not count:
            raise DataError("the arrays have no samples", where=str(self.path))
        if list(lengths) == [LABELS]:
            raise DataError("there are labels but no inputs", where=str(self.path))
        return min(count, self.limit) if self.limit else count


class ImageFolder:
    """Batches of the images in a folder, one class a sub-folder, with a stated preprocessing.

    Classes are numbered in the alphabetical order of the sub-folders; a folder without sub-folders
    gives images without labels. Values are (pixel / 255 - mean) / std, float32 [n, c, h, w].

    Args:
        path: The folder.
        size: (height, width) that each image is resized to (bilinear).
        mean: One entry a channel; three entries mean RGB, one means grey.
        std: One entry a channel, above zero.
        batch: Images a batch.
        limit: Use this many images only, taken evenly from the folder.

    Raises:
        DataError: The folder can't be read or holds no images; Pillow is missing; bad numbers.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        batch: int = 64,
        limit: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.size = (_positive(size[0], "height"), _positive(size[1], "width"))
        self.batch = _positive(batch, "batch")
        if len(mean) != len(std) or len(mean) not in (1, 3) or min(std) <= 0:
            raise DataError(
                f"mean {list(mean)} and std {list(std)} must have one or three entries, std above 0"
            )
        self.mean = np.asarray(mean, np.float32)[:, None, None]
        self.std = np.asarray(std, np.float32)[:, None, None]
        _pillow()
        self.classes, self.files = _find_images(self.path)
        if limit is not None and limit < len(self.files):
            chosen = np.linspace(0, len(self.files) - 1, _positive(limit, "limit")).round()
            self.files = [self.files[int(index)] for index in chosen]

    def __len__(self) -> int:
        return -(-len(self.files) // self.batch)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self.files), self.batch):
            chosen = self.files[start : start + self.batch]
            images = np.stack([self._read(path) for path, _ in chosen])
            if self.classes:
                yield images, np.array([label for _, label in chosen], np.int64)
            else:
                yield images

    def _read(self, path: Path) -> NDArray[np.float32]:
        image = _pillow()
        try:
            with image.open(path) as picture:
                flat = picture.convert("RGB" if len(self.mean) == 3 else "L")
                resized = flat.resize(self.size[::-1], image.Resampling.BILINEAR)
                pixels = np.asarray(resized, np.float32) / 255
        except (OSError, ValueError) as error:
            raise DataError(f"can't read the image: {error}", where=str(path)) from error
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        return ((planes - self.mean) / self.std).astype(np.float32)


def open_data(data: Any) -> Iterable[Any] | None:
    """Return `data` as an iterable of batches: the path of an .npz file is opened.

    Raises:
        DataError: Nothing that can be iterated, a folder without a stated preprocessing, or an
            array that was not wrapped in a list.
    """
    if data is None:
        return None
    if isinstance(data, str | os.PathLike):
        return _open_path(Path(data))
    if isinstance(data, np.ndarray | torch.Tensor):
        raise DataError(
            "data is a single array, and iterating over it gives samples, not batches",
            cure="pass [array] for one batch, or array.split(64) of a tensor",
        )
    if not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise DataError(
            f"data is a {type(data).__name__}, which can't be iterated",
            cure="pass a list of batches, a DataLoader, or the path of an .npz file",
        )
    return data


def _open_path(path: Path) -> Iterable[Any]:
    if path.is_dir():
        raise DataError(
            "a folder of images needs a stated preprocessing",
            where=str(path),
            cure="pass planish.ImageFolder(path, size=(h, w), mean=[...], std=[...]); on the "
            "command line --size, --mean and --std",
        )
    return NpzBatches(path)


def _find_images(path: Path) -> tuple[list[str], list[tuple[Path, int]]]:
    """Return the classes' names and (file, class) of each image, in a stable order."""
    if not path.is_dir():
        raise DataError("no such folder", where=str(path))
    classes = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    folders = [path / name for name in classes] if classes else [path]
    files = [
        (file, label)
        for label, folder in enumerate(folders)
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in _IMAGES
    ]
    if not files:
        raise DataError(
            f"no images there; known endings are {', '.join(sorted(_IMAGES))}", where=str(path)
        )
    return classes, files


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "reading images needs Pillow", cure="pip install pillow, or use an .npz file"
        ) from error
    return Image


def _positive(value: int, name: str) -> int:
    if value < 1:
        raise DataError(f"{name} must be at least 1, not {value}")
    return value

"""Labelled images for the demo, the tests and the benchmarks; NumPy only.

`fashion_mnist` looks for the files in the Debian package's place, then in the user's cache, then
downloads them there. Where none of this works it returns the digits of scikit-learn, and the
`Dataset` says so in `name` and `source`: whoever shows a number must show them too.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST" (2017), MIT licence; the digits are those of the UCI
repository (Alpaydin, Kaynak 1998).
"""

import gzip
import hashlib
import http.client
import os
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planish.ir.errors import DataError
from planish.ir.files import write_beside

SYSTEM = Path("/usr/share/datasets/fashion-mnist")
# The second knows no https; the checksums guard both.
MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
TIMEOUT = 5.0
"""Seconds that a mirror may be silent before it counts as out of reach."""

# Of the files' unpacked content: Debian packs them anew, with another header.
SHA256 = {
    f"{name}-ubyte.gz": checksum
    for name, checksum in (
        ("train-images-idx3", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        ("train-labels-idx1", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        ("t10k-images-idx3", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
        ("t10k-labels-idx1", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    )
}
CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Args:
        images: uint8 [n, 1, 28, 28], 0 is background.
        labels: int64 [n], an index into the dataset's classes.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, and where they come from.

    Args:
        name: "fashion-mnist" or "digits".
        source: The folder, the address or the package that the images were read from.
        classes: Names of the classes, by label.
        train: For training and calibration.
        test: For the numbers that are shown; no image of it stands in `train`.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: Split
    test: Split


def fashion_mnist(
    system: Path = SYSTEM,
    cache: Path | None = None,
    mirrors: Sequence[str] = MIRRORS,
    timeout: float = TIMEOUT,
) -> Dataset:
    """Return Fashion-MNIST (60,000 + 10,000 images), or the digits where it can't be had.

    Args:
        system: Folder of the Debian package dataset-fashion-mnist.
        cache: Folder for the download; `planish` in the user's cache folder by default.
        mirrors: Addresses that end in "/", tried in this order; none: nothing is downloaded.
        timeout: Seconds that a mirror may be silent.

    Raises:
        DataError: A file that is there is damaged, or neither the files nor scikit-learn are there.
        PlanishError: The disk is full.
    """
    cache = cache or user_cache() / "fashion-mnist"
    for folder in (system, cache):
        if all((folder / name).is_file() for name in SHA256):
            return _read_folder(folder, str(folder))
    for mirror in mirrors:
        if _download(mirror, cache, timeout):
            return _read_folder(cache, mirror)
    return digits()


def digits() -> Dataset:
    """Return scikit-learn's 1,797 digits of 8x8, enlarged three times and framed to 28x28.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "there is no Fashion-MNIST and no scikit-learn",
            cure="install the Debian package dataset-fashion-mnist or pip install 'planish[bench]'",
        ) from error
    pixels, targets = load_digits(return_X_y=True)
    small = np.round(np.asarray(pixels).reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    large = small.repeat(3, axis=2).repeat(3, axis=3)
    images = np.pad(large, ((0, 0), (0, 0), (2, 2), (2, 2)))
    labels = np.asarray(targets).astype(np.int64)
    held_out = np.arange(len(labels)) % 5 == 0
    return Dataset(
        name="digits",
        source="scikit-learn",
        classes=tuple(str(digit) for digit in range(10)),
        train=Split(images[~held_out], labels[~held_out]),
        test=Split(images[held_out], labels[held_out]),
    )


def user_cache() -> Path:
    """Return planish's folder in the user's cache (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "planish"


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the uint8 array in a gzipped idx file.

    Args:
        path: The file; its header is 0, 0, 8 (uint8), the number of dimensions, then each length as
            a 32-bit big-endian number.
        dimensions: How many dimensions there must be.

    Raises:
        DataError: The file is damaged or holds something else.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    if raw[:4] != bytes((0, 0, 8, dimensions)) or len(raw) < 4 + 4 * dimensions:
        raise _damaged(path, f"no idx file of {dimensions} dimensions")
    shape = [int(size) for size in np.frombuffer(raw, ">u4", dimensions, 4)]
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions)
    if values.size != np.prod(shape, dtype=np.int64):
        raise _damaged(path, f"{values.size} values where its header says {shape}")
    return values.reshape(shape)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"damaged file ({why})", where=str(path), cure="delete it and install it again"
    )


def _read_folder(folder: Path, source: str) -> Dataset:
    return Dataset(
        name="fashion-mnist",
        source=source,
        classes=CLASSES,
        train=_read_split(folder, "train"),
        test=_read_split(folder, "t10k"),
    )


def _read_split(folder: Path, prefix: str) -> Split:
    images_at = folder / f"{prefix}-images-idx3-ubyte.gz"
    labels_at = folder / f"{prefix}-labels-idx1-ubyte.gz"
    images, labels = read_idx(images_at, 3), read_idx(labels_at, 1)
    if images.shape[1:] != (28, 28):
        raise _damaged(images_at, f"images of {images.shape[1:]} where 28x28 are expected")
    if len(images) != len(labels):
        raise _damaged(labels_at, f"{len(labels)} labels for {len(images)} images")
    if labels.size and int(labels.max()) >= len(CLASSES):
        raise _damaged(labels_at, f"label {int(labels.max())} of {len(CLASSES)} classes")
    return Split(images[:, None], labels.astype(np.int64))


def _download(mirror: str, folder: Path, timeout: float) -> bool:
    """Fetch the four files into `folder`; False where the mirror is silent or serves others."""
    for name, expected in SHA256.items():
        try:
            with urllib.request.urlopen(mirror + name, timeout=timeout) as answer:
                packed = answer.read()
            if hashlib.sha256(gzip.decompress(packed)).hexdigest() != expected:
                return False
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException):
            return False
        write_beside(folder / name, packed)
    return True

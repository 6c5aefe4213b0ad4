"""Where the images come from, and what happens when a file is damaged or missing."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from planish import datasets
from planish.ir import DataError

IMAGES = "train-images-idx3-ubyte.gz"
LABELS = "t10k-labels-idx1-ubyte.gz"


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0))


def write_dataset(folder: Path, images: int = 5) -> None:
    """Write the four files with a few random images."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        pixels = random.integers(0, 256, (images, 28, 28))
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", random.integers(0, 10, images))


def test_reads_the_system_folder_first(tmp_path: Path) -> None:
    write_dataset(tmp_path / "system", images=5)
    write_dataset(tmp_path / "cache", images=6)
    data = datasets.fashion_mnist(tmp_path / "system", tmp_path / "cache", mirrors=())
    assert (data.name, data.source) == ("fashion-mnist", str(tmp_path / "system"))
    assert data.train.images.shape == data.test.images.shape == (5, 1, 28, 28)
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == np.int64


def test_reads_the_cache_where_the_package_is_missing(tmp_path: Path) -> None:
    write_dataset(tmp_path / "cache")
    data = datasets.fashion_mnist(tmp_path / "none", tmp_path / "cache", mirrors=())
    assert data.source == str(tmp_path / "cache")


@pytest.mark.needs_data
def test_real_files_have_the_right_content(fashion: datasets.Dataset) -> None:
    assert (len(fashion.train.labels), len(fashion.test.labels)) == (60_000, 10_000)
    assert np.bincount(fashion.test.labels).tolist() == [1000] * 10
    for name, expected in datasets.SHA256.items():
        content = gzip.decompress((Path(fashion.source) / name).read_bytes())
        assert hashlib.sha256(content).hexdigest() == expected


def mirror_of(folder: Path) -> str:
    return folder.as_uri() + "/"


def test_downloads_what_has_the_right_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "mirror")
    checksums = {
        path.name: hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        for path in (tmp_path / "mirror").iterdir()
    }
    monkeypatch.setattr(datasets, "SHA256", checksums)
    mirrors = [mirror_of(tmp_path / "nothing"), mirror_of(tmp_path / "mirror")]
    data = datasets.fashion_mnist(tmp_path / "none", tmp_path / "cache", mirrors)
    assert (data.name, data.source) == ("fashion-mnist", mirrors[1])
    assert {path.name for path in (tmp_path / "cache").iterdir()} == set(checksums)


def test_falls_back_to_the_digits_and_says_so(tmp_path: Path) -> None:
    write_dataset(tmp_path / "mirror")  # not the real files: the checksums differ
    mirrors = [mirror_of(tmp_path / "mirror"), "http://localhost:1/", "no address"]
    data = datasets.fashion_mnist(tmp_path / "none", tmp_path / "cache", mirrors)
    assert (data.name, data.source) == ("digits", "scikit-learn")
    assert not (tmp_path / "cache").exists()
    assert len(data.train.labels) + len(data.test.labels) == 1797
    assert data.train.images.shape[1:] == (1, 28, 28)
    assert data.train.images.dtype == np.uint8
    assert data.train.images.max() == 255
    assert set(np.unique(data.test.labels)) == set(range(10))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(IMAGES, b"", "no idx file of 3 dimensions", id="empty"),
        pytest.param(IMAGES, b"\0\0\x08\x01\0\0\0\0", "3 dimensions", id="labels for images"),
        pytest.param(LABELS, b"\0\0\x08\x01\0\0\0\x05\1", "1 values", id="too short"),
        pytest.param(LABELS, b"\0\0\x08\x01\0\0\0\x01\1", "1 labels for 5", id="too few"),
        pytest.param(
            LABELS, b"\0\0\x08\x01\0\0\0\x05\0\0\0\0\x0c", "label 12 of 10", id="no such class"
        ),
    ],
)
def test_damaged_content_is_a_data_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    write_dataset(tmp_path)
    (tmp_path / name).write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=message) as caught:
        datasets.fashion_mnist(tmp_path, mirrors=())
    assert str(tmp_path / name) in str(caught.value)


def test_other_file_is_a_data_error(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    (tmp_path / IMAGES).write_bytes(b"no gzip")
    with pytest.raises(DataError, match="damaged file"):
        datasets.fashion_mnist(tmp_path, mirrors=())


def test_truncated_file_is_a_data_error(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    path = tmp_path / IMAGES
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="damaged file"):
        datasets.fashion_mnist(tmp_path, mirrors=())


def test_images_of_another_size_are_a_data_error(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    write_idx(tmp_path / IMAGES, np.zeros((5, 28, 27)))
    with pytest.raises(DataError, match="28x28 are expected"):
        datasets.fashion_mnist(tmp_path, mirrors=())

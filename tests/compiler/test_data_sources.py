"""Data from files: .npz, folders of images."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planish import Graph, ImageFolder, NpzBatches, Pipeline, passes
from planish.data_sources import open_data
from planish.ir import DataError


def test_npz(data_file: Path) -> None:
    data = NpzBatches(data_file, batch=16)
    assert [len(labels) for _, labels in data] == [16, 16, 8]
    assert len(data) == 3
    again = [(images.copy(), labels.copy()) for images, labels in data]
    assert all((a == b).all() for (a, _), (b, _) in zip(data, again, strict=True))


def test_npz_limit(data_file: Path) -> None:
    assert sum(len(labels) for _, labels in NpzBatches(data_file, batch=16, limit=20)) == 20


def test_npz_without_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", anything=np.zeros((3, 2)))
    assert [batch.shape for batch in NpzBatches(tmp_path / "x.npz", batch=2)] == [(2, 2), (1, 2)]


def test_npz_of_several_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros((3, 2)), b=np.ones(3), labels=np.arange(3))
    (batch,) = NpzBatches(tmp_path / "x.npz")
    assert sorted(batch) == ["a", "b", "labels"]


def test_a_path_is_data(graph: Graph, data_file: Path) -> None:
    steps = [passes.FoldBatchNorm(), passes.InsertQDQ()]
    report = Pipeline(steps).run(graph, str(data_file), validation=data_file).report
    assert report.stages[-1].accuracy is not None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no arrays"),
        ({"x": np.zeros((3, 2)), "labels": np.zeros(4)}, "different numbers of samples"),
        ({"x": np.zeros((0, 2))}, "no samples"),
        ({"x": np.float32(1)}, "different numbers"),
        ({"labels": np.zeros(4)}, "labels but no inputs"),
        ({"x": np.array([{"a": 1}], dtype=object)}, "not a .npz file of plain arrays"),
    ],
)
def test_bad_npz(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        NpzBatches(tmp_path / "x.npz")


def test_damaged_npz(data_file: Path) -> None:
    content = data_file.read_bytes()
    for damaged in (b"", b"no zip", content[: len(content) // 2]):
        data_file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"not a \.npz file"):
            NpzBatches(data_file)


def test_bad_numbers(data_file: Path) -> None:
    with pytest.raises(DataError, match="batch must be at least 1"):
        NpzBatches(data_file, batch=0)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes with two images each."""
    image = pytest.importorskip("PIL.Image")
    for index, name in enumerate(("cat", "dog")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            pixels = np.full((6, 4, 3), 100 * index + 10 * number, np.uint8)
            image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def test_image_folder(images: Path) -> None:
    data = ImageFolder(images, size=(8, 6), mean=[0.5] * 3, std=[0.25] * 3, batch=3)
    assert data.classes == ["cat", "dog"]
    (first, labels), (_, rest) = data
    assert (first.shape, first.dtype) == ((3, 3, 8, 6), np.float32)
    assert [*labels, *rest] == [0, 0, 1, 1]
    assert first[1] == pytest.approx((10 / 255 - 0.5) / 0.25, abs=1e-5)


def test_grey_images_without_classes(images: Path) -> None:
    data = ImageFolder(images / "cat", size=(4, 4), mean=[0], std=[1], limit=1)
    assert [batch.shape for batch in data] == [(1, 1, 4, 4)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (0, 4)}, "height must be at least 1"),
        ({"std": [0.0]}, "std above 0"),
        ({"mean": [0.0, 0.0]}, "one or three entries"),
    ],
)
def test_bad_preprocessing(images: Path, changes: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"size": (4, 4), "mean": [0.0], "std": [1.0]}
    with pytest.raises(DataError, match=message):
        ImageFolder(images, **{**options, **changes})


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "note.txt").touch()
    with pytest.raises(DataError, match="no images there"):
        ImageFolder(tmp_path, size=(4, 4), mean=[0], std=[1])


def test_damaged_image(images: Path) -> None:
    (images / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"can't read the image.*0\.png"):
        list(ImageFolder(images, size=(4, 4), mean=[0], std=[1]))


def test_without_pillow(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match="pip install pillow"):
        ImageFolder(images, size=(4, 4), mean=[0], std=[1])


def test_a_folder_needs_its_preprocessing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="stated preprocessing"):
        open_data(tmp_path)

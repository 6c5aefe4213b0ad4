"""The teacher: its size, its accuracy, its weights, and the script that trains it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors import safe_open

from planish.datasets import Dataset, Split
from planish.examples.fashion_mnist import train_teacher
from planish.examples.fashion_mnist.model import WEIGHTS, ResNet20, accuracy, teacher
from planish.ir import ModelError


@pytest.fixture
def few() -> Dataset:
    random = np.random.default_rng(0)
    split = Split(random.integers(0, 256, (64, 1, 28, 28), np.uint8), random.integers(0, 10, 64))
    return Dataset("few", "random", tuple("0123456789"), split, split)


def test_size_and_shapes() -> None:
    model = ResNet20().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 272_186
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_weights_are_small_and_say_how_they_were_made() -> None:
    assert WEIGHTS.stat().st_size < 2_000_000
    with safe_open(WEIGHTS, "pt") as file:
        notes = file.metadata()
    assert json.loads(notes["recipe"]) == dataclasses.asdict(train_teacher.Recipe())
    assert notes["data"] == "fashion-mnist"
    assert float(notes["accuracy"]) >= 0.93


@pytest.mark.needs_data
def test_accuracy_on_the_test_images(fashion: Dataset) -> None:
    images, labels = torch.tensor(fashion.test.images), torch.tensor(fashion.test.labels)
    assert accuracy(teacher(), images, labels) >= 0.93


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"weights are missing; at .*none.safetensors; train them"):
        teacher(tmp_path / "none.safetensors")


def test_damaged_weights(tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(ModelError, match="no weights of ResNet20") as caught:
        teacher(path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    train_teacher.save(torch.nn.Linear(2, 2), path, {})
    with pytest.raises(ModelError, match="no weights of ResNet20"):
        teacher(path)


def test_training_is_determined_by_the_seed(few: Dataset, tmp_path: Path) -> None:
    recipe = train_teacher.Recipe(epochs=2, batch=32)
    console = Console(quiet=True)
    first = train_teacher.train(few, recipe, console)
    train_teacher.save(first, tmp_path / "first.safetensors", {})
    again = train_teacher.train(few, recipe, console)
    other = train_teacher.train(few, dataclasses.replace(recipe, seed=1), console)
    saved = teacher(tmp_path / "first.safetensors").state_dict()
    assert all(torch.equal(saved[name], value) for name, value in again.state_dict().items())
    assert not torch.equal(saved["fc.weight"], other.state_dict()["fc.weight"])
    assert [path.name for path in tmp_path.iterdir()] == ["first.safetensors"]


def test_augmentation_shifts_and_mirrors() -> None:
    torch.manual_seed(0)
    images = torch.zeros(200, 1, 8, 8)
    images[:, 0, 3, 2] = 1.0
    places = train_teacher.augment(images, shift=1).nonzero()
    assert len(places) == 200
    assert set(places[:, 2].tolist()) == {2, 3, 4}
    assert set(places[:, 3].tolist()) == {1, 2, 3, 4, 5, 6}

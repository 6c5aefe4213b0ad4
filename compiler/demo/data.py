"""The demo's images: batches to train and to calibrate on, and to measure on."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from planish.examples.fashion_mnist.train_teacher import augment

from ..datasets import Dataset, Split, fashion_mnist

_SHIFT = 2  # pixels; as in the teacher's own training
_TEST_BATCH = 500


class TrainingBatches:
    """Shuffled batches of (images, labels), each image shifted and mirrored at random.

    The same seed and epoch give the same batches.

    Args:
        split: The images.
        batch: Images a batch; a last one of fewer images is left out.
        seed: Of order and augmentation.
        augmented: Whether images are shifted and mirrored; digits have no mirror images.
    """

    def __init__(self, split: Split, *, batch: int, seed: int, augmented: bool) -> None:
        self.images = torch.tensor(split.images)
        self.labels = torch.tensor(split.labels)
        self.batch = min(batch, len(self.labels))
        self.seed = seed
        self.augmented = augmented
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels) // self.batch

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 1009 + self.epoch)
        order = torch.randperm(len(self.labels), generator=generator)
        for chosen in order[: len(self) * self.batch].split(self.batch):
            images = self.images[chosen].float() / 255
            if self.augmented:
                images = _augmented(images, generator)
            yield images, self.labels[chosen]


class TestBatches:
    """Batches of (images, labels) in their own order; images are float32 in 0..1."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(self, split: Split) -> None:
        self.images = split.images.astype("float32") / 255
        self.labels = split.labels

    def __len__(self) -> int:
        return -(-len(self.labels) // _TEST_BATCH)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(self.labels), _TEST_BATCH):
            rows = slice(start, start + _TEST_BATCH)
            yield torch.tensor(self.images[rows]), torch.tensor(self.labels[rows])


def load(limit: int | None) -> Dataset:
    """Return Fashion-MNIST, or the digits where it can't be had; the first `limit` images only."""
    data = fashion_mnist()
    if limit is None:
        return data
    train = Split(data.train.images[:limit], data.train.labels[:limit])
    test = Split(data.test.images[:limit], data.test.labels[:limit])
    return Dataset(data.name, data.source, data.classes, train, test)


def _augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift and mirror with torch's own generator seeded from ours, and left as it was."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return augment(images, _SHIFT)

"""train: a resumed run is an uninterrupted one, and the early stop keeps the best weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch
from torch.utils.data import DataLoader, TensorDataset

from planish.ir import PassError, PlanishError
from planish.passes import Context, Progress, Train

if TYPE_CHECKING:
    from tests.passes.train.conftest import Task


class Interrupted(Progress):
    """Stops a training in the middle of an epoch, as Ctrl-C would."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def track(self, items: Any, description: str, total: int | None = None) -> Iterator[Any]:
        del total
        for index, item in enumerate(items):
            if description.startswith(f"epoch {self.epoch + 1}/") and index == 3:
                raise KeyboardInterrupt
            yield item


@pytest.mark.parametrize(
    ("optimizer", "stream"),
    [
        ("sgd", "global"),
        ("adamw", "global"),
        ("asgd", "global"),
        ("sgd", "own generator"),
        ("sgd", "set_epoch"),
    ],
)
def test_resume_is_as_if_never_interrupted(
    task: Task, tmp_path: Path, optimizer: str, stream: str
) -> None:
    item = Train(4, optimizer, 0.02, clip_gradient=1.0, patience=4, monitor="loss")

    def resources() -> dict[str, Any]:
        return {"data": shuffled(task, stream), "validation": task.data(32, seed=3)}

    whole = task.net()
    expected = task.run(whole, item, **resources())
    item = replace(item, checkpoint=tmp_path / "training")
    stopped = task.net()
    with pytest.raises(KeyboardInterrupt):
        item.run(stopped, Context(progress=Interrupted(2), **resources()))
    assert stopped.fingerprint() == task.net().fingerprint(), "an interrupted pass leaves no trace"
    resumed = task.net()
    assert task.run(resumed, item, **resources()) == expected
    assert resumed.fingerprint() == whole.fingerprint()
    again = task.net()  # the training is complete: nothing is left to do
    assert task.run(again, item, **resources()) == expected
    assert again.fingerprint() == whole.fingerprint()


class ByEpoch:
    """Shuffles by the number of the epoch."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[Any]:
        return iter(self.task.data(seed=self.epoch))


def shuffled(task: Task, stream: str) -> Any:
    if stream == "set_epoch":
        return ByEpoch(task)
    generator = torch.Generator().manual_seed(5) if stream == "own generator" else None
    images = TensorDataset(*task.samples())
    return DataLoader(images, batch_size=16, shuffle=True, generator=generator)


def test_checkpoints_of_another_training_are_refused(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "training"
    task.run(task.net(), Train(learning_rate=0.01, checkpoint=path))
    other = task.net()
    task.run(other, Train(learning_rate=0.01))
    for graph, rate, seed, reason in (
        (other, 0.01, 0, "another graph"),
        (task.net(), 0.02, 0, "another options"),
        (task.net(), 0.01, 1, "another seed"),
    ):
        item = Train(learning_rate=rate, checkpoint=path)
        with pytest.raises(PassError, match=f"of another training: {reason}; at .*training"):
            item.run(graph, Context(data=task.data(), seed=seed))


def test_damaged_checkpoints_are_refused(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "training"
    task.run(task.net(), Train(checkpoint=path))
    content = path.read_bytes()
    foreign = safetensors.torch.save({"a": torch.zeros(1)})
    for damaged in (content[:-100], b"junk", b"", foreign):
        path.write_bytes(damaged)
        with pytest.raises(PassError, match="not a checkpoint of train"):
            Train(checkpoint=path).run(task.net(), Context(data=task.data()))


def test_a_checkpoint_that_cant_be_written(task: Task, tmp_path: Path) -> None:
    graph = task.net()
    with pytest.raises(PlanishError, match="can't write"):
        Train(checkpoint=tmp_path / "no" / "training").run(graph, Context(data=task.data()))
    assert graph.fingerprint() == task.net().fingerprint()


def test_early_stop_keeps_the_best_weights(task: Task) -> None:
    """A rate that ruins the weights: the best are those from before training."""
    graph = task.net()
    task.run(graph, Train(epochs=5, learning_rate=0.1))
    good = graph.fingerprint()
    item = Train(10, "sgd", 30.0, "constant", patience=2, clip_gradient=10.0, momentum=0.0)
    result = item.run(graph, Context(data=task.data(), validation=task.data(seed=1)))
    assert not result.changed
    assert graph.fingerprint() == good
    assert result.notes["best_epoch"] == 0
    assert result.notes["stopped_early"]
    assert len(result.notes["losses"]) == 2
    assert len(result.notes["validation_accuracy"]) == 2


@pytest.mark.parametrize("monitor", ["accuracy", "loss"])
def test_early_stop_ends_on_the_best_epoch(task: Task, monitor: str) -> None:
    graph, validation = task.net(), task.data(seed=1)
    item = Train(6, "sgd", 0.05, patience=6, monitor=monitor)
    notes = task.run(graph, item, validation=validation)
    key = "validation_accuracy" if monitor == "accuracy" else "validation_losses"
    best = max(notes[key]) if monitor == "accuracy" else min(notes[key])
    assert notes[key].index(best) + 1 == notes["best_epoch"]
    if monitor == "accuracy":
        assert task.accuracy(graph) == pytest.approx(best)


def test_validation_without_patience_only_watches(task: Task) -> None:
    watched, alone = task.net(), task.net()
    notes = task.run(watched, Train(2), validation=task.data(seed=1))
    task.run(alone, Train(2))
    assert watched.fingerprint() == alone.fingerprint()
    assert notes["validation_accuracy"][-1] == pytest.approx(task.accuracy(watched))

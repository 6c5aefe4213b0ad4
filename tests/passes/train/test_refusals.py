"""train: every bad option, bad batch and failure, and that none of them harms the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional as F

from planish.ir import DataError, OptionError, PassError
from planish.passes import Context, Train

if TYPE_CHECKING:
    from tests.passes.train.conftest import Task


def test_divergence_names_the_batch_and_harms_nothing(task: Task) -> None:
    graph = task.net()
    with pytest.raises(PassError, match=r"batch \d of epoch 1; at train; lower the learning rate"):
        Train(learning_rate=1e30, schedule="constant").run(graph, Context(data=task.data()))
    assert graph.fingerprint() == task.net().fingerprint()
    assert not graph.training
    with pytest.raises(PassError, match="holds NaN or infinity after epoch 1"):
        Train(learning_rate=1e38, schedule="constant", weight_decay=1e38).run(
            graph, Context(data=task.data(16))
        )
    assert graph.fingerprint() == task.net().fingerprint()


def test_nothing_to_train(task: Task) -> None:
    graph = task.net()
    for value in graph.parameters():
        value.requires_grad_(False)
    with pytest.raises(PassError, match="no trainable parameters"):
        Train().run(graph, Context(data=task.data()))


def test_a_loss_that_no_parameter_moves(task: Task) -> None:
    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        del outputs
        return labels.float().mean()

    with pytest.raises(PassError, match="depends on no trainable parameter"):
        Train().run(task.net(), Context(data=task.data(), loss=loss))


def test_patience_needs_something_to_watch(task: Task) -> None:
    with pytest.raises(DataError, match="patience needs validation data"):
        Train(patience=1).run(task.net(), Context(data=task.data()))

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(outputs[:, 0], labels)

    regression = [(images, labels.float()) for images, labels in task.data()]
    context = Context(data=regression, validation=regression, loss=loss)
    with pytest.raises(PassError, match='set monitor="loss"'):
        Train(patience=1).run(task.net(), context)
    Train(patience=1, monitor="loss").run(task.net(), context)


UNFIT = "don't fit the first output"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _: None, "train needs data"),
        (lambda _: [], "train got no batches"),
        (lambda data: [images for images, _ in data], "train needs labels"),
        (lambda data: [(images, labels[:3]) for images, labels in data], UNFIT),
        (lambda data: [(images, labels.float()) for images, labels in data], UNFIT),
        (lambda data: [(images, labels + 9) for images, labels in data], UNFIT),
        (lambda data: [(images[:, :, :4], labels) for images, labels in data], "has shape"),
        (lambda data: [(images / 0, labels) for images, labels in data], "NaN or infinity"),
        (lambda data: iter(data), "needs to know how many batches"),
    ],
)
def test_bad_data(task: Task, spoil: Callable[[Any], Any], message: str) -> None:
    graph = task.net()
    with pytest.raises(DataError, match=message):
        Train().run(graph, Context(data=spoil(task.data(16))))
    assert graph.fingerprint() == task.net().fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"learning_rate": 0.0}, "must be above 0"),
        ({"learning_rate": float("inf")}, "must be above 0"),
        ({"clip_gradient": -1.0}, "must be above 0"),
        ({"weight_decay": -1.0}, "below 0"),
        ({"warm_up": 1.0}, "warm_up is 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"monitor": "acuracy"}, "did you mean 'accuracy'"),
        ({"optimizer": "adamW2"}, "did you mean 'adamw'"),
        ({"optimizer": "lbfgs"}, "unknown optimizer"),
        ({"optimizer": "adamw", "momentum": 0.9}, "takes no momentum"),
        ({"optimizer_options": {"nestrov": True}}, "did you mean 'nesterov'"),
        ({"learning_rte": 0.1}, "did you mean 'learning_rate'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Train.from_options(options)


def test_values_that_the_optimizer_rejects(task: Task) -> None:
    graph = task.net()
    with pytest.raises(OptionError, match="optimizer 'adamw'"):
        Train(optimizer="adamw", optimizer_options={"betas": [2.0, 0.9]}).run(
            graph, Context(data=task.data())
        )
    assert graph.fingerprint() == task.net().fingerprint()

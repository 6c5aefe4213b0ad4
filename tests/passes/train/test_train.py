"""train: it learns, equal runs are equal, distillation and quantization-aware training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from planish import capture
from planish.ir import DataError, Graph, PassError
from planish.passes import Context, InsertQDQ, InsertTeacherHooks, LowerToInteger, Progress, Train
from planish.passes.distillation.distillation_losses import attention_loss, soft_label_loss
from planish.passes.fold_batch_norm import FoldBatchNorm
from planish.passes.training.objective import objective

if TYPE_CHECKING:
    from tests.passes.train.conftest import Task


def test_it_learns(task: Task) -> None:
    graph = task.net()
    notes = task.run(graph, Train(epochs=8, learning_rate=0.1))
    assert notes["losses"][-1] < 0.3 * notes["losses"][0]
    assert notes["accuracy"][-1] > 0.95
    assert task.accuracy(graph) > 0.95
    assert (notes["steps"], notes["best_epoch"], notes["stopped_early"]) == (64, 8, False)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("adamw", {"betas": (0.8, 0.99)}),
        ("Adam", {}),
        ("nadam", {}),
        ("rmsprop", {"alpha": 0.9}),
        ("sgd", {"nesterov": True}),
    ],
)
def test_any_optimizer_learns(task: Task, optimizer: str, options: dict[str, Any]) -> None:
    rate = 0.05 if optimizer == "sgd" else 0.01
    item = Train(3, optimizer, rate, optimizer_options=options, schedule="constant")
    assert Train.from_options(item.options()) == item
    notes = task.run(task.net(), item)
    assert notes["losses"][-1] < notes["losses"][0]


def test_batch_norm_trains_and_ends_in_eval_mode(task: Task) -> None:
    graph = task.net()
    before = graph.attribute("bn.running_mean").clone()
    text = graph.text()
    task.run(graph, Train(learning_rate=0.01))
    assert not torch.equal(graph.attribute("bn.running_mean"), before)
    assert graph.text() == text
    assert all(value.grad is None for value in graph.parameters())
    assert all(value.is_contiguous() for value in graph.attributes.values())


def test_a_step_is_torchs_own_step(task: Task) -> None:
    """One epoch against a loop written with torch alone."""
    graph, model = task.net(), task.model()
    model.load_state_dict(dict(graph.attributes), strict=False)
    model.drop.p = 0.0
    next(n for n in graph.calls if n.name == "dropout").update_arg(1, 0.0)
    graph.infer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.8, weight_decay=1e-3)
    for images, labels in task.data(64):
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    item = Train(1, "sgd", 0.1, "constant", weight_decay=1e-3, momentum=0.8, label_smoothing=0.1)
    task.run(graph, item, data=task.data(64))
    for name, value in model.named_parameters():
        torch.testing.assert_close(graph.attribute(name), value, rtol=1e-3, atol=1e-5)


class Shuffle(nn.Module):
    """A channel shuffle: views of four and five axes, which want the plain memory layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv(x))
        n, _, h, w = x.shape
        x = x.view(n, 2, 4, h, w).transpose(1, 2).reshape(n, 8, h, w)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_views_of_images_train(task: Task) -> None:
    graph = capture(Shuffle(), (torch.zeros(1, 1, 8, 8),))
    task.run(graph, Train(learning_rate=0.01))


def test_equal_runs_are_equal(task: Task) -> None:
    def trained(seed: int) -> str:
        graph = task.net()
        images = TensorDataset(*task.samples())
        shuffled = DataLoader(images, batch_size=16, shuffle=True)
        before = torch.get_rng_state()  # after the network's own draws
        task.run(graph, Train(epochs=2), data=shuffled, seed=seed)
        assert torch.equal(torch.get_rng_state(), before), "the caller's random state is touched"
        return graph.fingerprint()

    first = trained(0)
    torch.manual_seed(77)
    assert trained(0) == first
    assert trained(1) != first


def test_steps_bound_an_epoch_and_endless_data_works(task: Task) -> None:
    class Endless:
        def __iter__(self) -> Iterator[Any]:
            while True:
                yield from task.data(32)

    notes = task.run(task.net(), Train(2, learning_rate=0.01, steps=3), data=Endless())
    assert notes["steps"] == 6


def test_distillation_needs_labels_only_for_hard_labels(task: Task) -> None:
    teacher = task.net()
    task.run(teacher, Train(epochs=6, learning_rate=0.1))
    unlabelled = [images for images, _ in task.data()]
    student = task.net(seed=9)
    hooks = InsertTeacherHooks(teacher, soft_labels=1.0, hard_labels=0.0, attention=1.0)
    hooks.run(student, Context())
    notes = task.run(student, Train(8, learning_rate=0.1), data=unlabelled)
    assert notes["losses"][-1] < 0.3 * notes["losses"][0]
    assert notes["accuracy"] == [None] * 8
    assert task.accuracy(student) > 0.9
    hard = task.net()
    InsertTeacherHooks(teacher).run(hard, Context())
    with pytest.raises(DataError, match="train needs labels"):
        Train().run(hard, Context(data=unlabelled))


def test_the_loss_is_the_weighted_sum(task: Task) -> None:
    graph, teacher = task.net(), task.net()
    InsertTeacherHooks(teacher, 0.7, 3.0, 0.2, attention=0.5).run(graph, Context())
    (images, labels), *_ = task.data(16)
    flat = graph.module(images)
    own = [n.name for n in graph.outputs]
    pairs = [("relu", "teacher_relu"), ("relu_1", "teacher_relu_1")]
    expected = 0.7 * soft_label_loss(flat[0], flat[1], 3.0) + 0.2 * F.cross_entropy(flat[0], labels)
    for student, partner in pairs:
        expected += 0.5 * attention_loss(flat[own.index(student)], flat[own.index(partner)])
    torch.testing.assert_close(objective(graph, Context())(flat, labels), expected)


def test_a_loss_of_ones_own(task: Task) -> None:
    seen: list[tuple[int, ...]] = []

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(outputs.shape))
        return (outputs.sum(1) - labels).square().mean()

    task.run(task.net(), Train(learning_rate=0.001), loss=loss)
    assert seen == [(16, 4)] * 8
    with pytest.raises(PassError, match="label_smoothing serves the default loss"):
        Train(label_smoothing=0.1).run(task.net(), Context(data=task.data(), loss=loss))


def quantized(task: Task) -> Graph:
    context = Context(data=task.data())
    graph = task.net()
    task.run(graph, Train(epochs=2, learning_rate=0.1))
    return InsertQDQ().run(FoldBatchNorm().run(graph, context).graph, context).graph


def test_quantization_aware_training_keeps_scales_and_meaning(task: Task) -> None:
    graph = quantized(task)
    text = graph.text()
    scales = {n: v.clone() for n, v in graph.attributes.items() if n.endswith(("scale", "point"))}
    notes = task.run(graph, Train(4, learning_rate=0.02))
    assert notes["losses"][-1] < notes["losses"][0]
    assert graph.text() == text
    for name, value in scales.items():
        assert torch.equal(graph.attribute(name), value), name
    integer = LowerToInteger().run(graph.copy(), Context()).graph
    images, _ = task.samples(seed=1)
    torch.testing.assert_close(graph(images), integer(images), rtol=0, atol=0)


def test_quantization_aware_training_keeps_batch_norm(task: Task) -> None:
    context = Context(data=task.data())
    graph = task.net()
    graph = InsertQDQ().run(graph, context).graph  # not folded: a float operator of its own
    before = graph.attribute("bn.running_mean").clone()
    task.run(graph, Train(learning_rate=0.001))
    assert torch.equal(graph.attribute("bn.running_mean"), before)


def test_progress_is_shown(task: Task) -> None:
    lines: list[str] = []

    class Shown(Progress):
        def status(self, text: str) -> None:
            lines.append(text)

    task.run(task.net(), Train(2, learning_rate=0.01), progress=Shown(), validation=task.data(16))
    assert [line.split(",")[0] for line in lines][-1] == "epoch 2/2"
    for word in ("loss", "accuracy", "validation loss", "it/s"):
        assert word in lines[-1]

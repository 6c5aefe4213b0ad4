"""train: it learns, equal runs are equal, a resumed run is an uninterrupted one, every refusal."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from planish import capture
from planish.ir import DataError, Graph, OptionError, PassError, PlanishError, verify
from planish.passes import Context, InsertQDQ, InsertTeacherHooks, LowerToInteger, Progress, Train
from planish.passes.distillation_losses import attention_loss, soft_label_loss
from planish.passes.fold_batch_norm import FoldBatchNorm
from planish.passes.objective import objective

Batches = list[tuple[torch.Tensor, torch.Tensor]]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv2(F.relu(self.bn(self.conv1(x)))))
        return self.fc(self.drop(F.adaptive_avg_pool2d(x, 1).flatten(1)))


@cache
def captured() -> Graph:
    torch.manual_seed(0)
    return capture(Net(), (torch.zeros(1, 1, 8, 8),))


def net() -> Graph:
    return captured().copy()


def samples(count: int = 128, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Stripes of four directions in noise: [n, 1, 8, 8] and class numbers."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    line = (torch.arange(8) % 2).float()
    rows, columns = line[:, None].expand(8, 8), line[None, :].expand(8, 8)
    diagonal = ((torch.arange(8)[:, None] + torch.arange(8)) // 2 % 2).float()
    patterns = torch.stack([rows, columns, diagonal, diagonal.flip(1)])
    noise = 0.2 * torch.randn(count, 8, 8, generator=generator)
    return (patterns[labels] + noise)[:, None], labels


def data(count: int = 128, seed: int = 0) -> Batches:
    images, labels = samples(count, seed)
    return list(zip(images.split(16), labels.split(16), strict=True))


def accuracy(graph: Graph) -> float:
    images, labels = samples(seed=1)
    return float((graph(images).argmax(1) == labels).float().mean())


def run(graph: Graph, item: Train, **context: Any) -> dict[str, Any]:
    result = item.run(graph, Context(**{"data": data(), **context}))
    verify(graph)
    assert result.changed
    assert not graph.training
    return result.notes


def test_it_learns() -> None:
    graph = net()
    notes = run(graph, Train(epochs=8, learning_rate=0.1))
    assert notes["losses"][-1] < 0.3 * notes["losses"][0]
    assert notes["accuracy"][-1] > 0.95
    assert accuracy(graph) > 0.95
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
def test_any_optimizer_learns(optimizer: str, options: dict[str, Any]) -> None:
    rate = 0.05 if optimizer == "sgd" else 0.01
    item = Train(3, optimizer, rate, optimizer_options=options, schedule="constant")
    assert Train.from_options(item.options()) == item
    notes = run(net(), item)
    assert notes["losses"][-1] < notes["losses"][0]


def test_batch_norm_trains_and_ends_in_eval_mode() -> None:
    graph = net()
    before = graph.attribute("bn.running_mean").clone()
    text = graph.text()
    run(graph, Train(learning_rate=0.01))
    assert not torch.equal(graph.attribute("bn.running_mean"), before)
    assert graph.text() == text
    assert all(value.grad is None for value in graph.parameters())
    assert all(value.is_contiguous() for value in graph.attributes.values())


def test_a_step_is_torchs_own_step() -> None:
    """One epoch against a loop written with torch alone."""
    graph, model = net(), Net()
    model.load_state_dict(dict(graph.attributes), strict=False)
    model.drop.p = 0.0
    next(n for n in graph.calls if n.name == "dropout").update_arg(1, 0.0)
    graph.infer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.8, weight_decay=1e-3)
    for images, labels in data(64):
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    item = Train(1, "sgd", 0.1, "constant", weight_decay=1e-3, momentum=0.8, label_smoothing=0.1)
    run(graph, item, data=data(64))
    for name, value in model.named_parameters():
        torch.testing.assert_close(graph.attribute(name), value, rtol=1e-3, atol=1e-5)


def test_equal_runs_are_equal() -> None:
    def trained(seed: int) -> str:
        graph = net()
        images = TensorDataset(*samples())
        shuffled = DataLoader(images, batch_size=16, shuffle=True)
        run(graph, Train(epochs=2), data=shuffled, seed=seed)
        return graph.fingerprint()

    before = torch.get_rng_state()
    first = trained(0)
    assert torch.equal(torch.get_rng_state(), before), "the caller's random state is touched"
    torch.manual_seed(77)
    assert trained(0) == first
    assert trained(1) != first


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
def test_resume_is_as_if_never_interrupted(tmp_path: Path, optimizer: str, stream: str) -> None:
    item = Train(4, optimizer, 0.02, clip_gradient=1.0, patience=4, monitor="loss")

    def resources() -> dict[str, Any]:
        return {"data": shuffled(stream), "validation": data(32, seed=3)}

    whole = net()
    expected = run(whole, item, **resources())
    item = replace(item, checkpoint=tmp_path / "training")
    stopped = net()
    with pytest.raises(KeyboardInterrupt):
        item.run(stopped, Context(progress=Interrupted(2), **resources()))
    assert stopped.fingerprint() == net().fingerprint(), "an interrupted pass leaves no trace"
    resumed = net()
    assert run(resumed, item, **resources()) == expected
    assert resumed.fingerprint() == whole.fingerprint()
    again = net()  # the training is complete: nothing is left to do
    assert run(again, item, **resources()) == expected
    assert again.fingerprint() == whole.fingerprint()


class ByEpoch:
    """Shuffles by the number of the epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[Any]:
        return iter(data(seed=self.epoch))


def shuffled(stream: str) -> Any:
    if stream == "set_epoch":
        return ByEpoch()
    generator = torch.Generator().manual_seed(5) if stream == "own generator" else None
    images = TensorDataset(*samples())
    return DataLoader(images, batch_size=16, shuffle=True, generator=generator)


def test_checkpoints_of_another_training_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "training"
    run(net(), Train(learning_rate=0.01, checkpoint=path))
    other = net()
    run(other, Train(learning_rate=0.01))
    for graph, rate, seed, reason in (
        (other, 0.01, 0, "another graph"),
        (net(), 0.02, 0, "another options"),
        (net(), 0.01, 1, "another seed"),
    ):
        item = Train(learning_rate=rate, checkpoint=path)
        with pytest.raises(PassError, match=f"of another training: {reason}; at .*training"):
            item.run(graph, Context(data=data(), seed=seed))


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "training"
    run(net(), Train(checkpoint=path))
    content = path.read_bytes()
    foreign = safetensors.torch.save({"a": torch.zeros(1)})
    for damaged in (content[:-100], b"junk", b"", foreign):
        path.write_bytes(damaged)
        with pytest.raises(PassError, match="not a checkpoint of train"):
            Train(checkpoint=path).run(net(), Context(data=data()))


def test_a_checkpoint_that_cant_be_written(tmp_path: Path) -> None:
    graph = net()
    with pytest.raises(PlanishError, match="can't write"):
        Train(checkpoint=tmp_path / "no" / "training").run(graph, Context(data=data()))
    assert graph.fingerprint() == net().fingerprint()


def test_early_stop_keeps_the_best_weights() -> None:
    """A rate that ruins the weights: the best are those from before training."""
    graph = net()
    run(graph, Train(epochs=5, learning_rate=0.1))
    good = graph.fingerprint()
    item = Train(10, "sgd", 30.0, "constant", patience=2, clip_gradient=10.0, momentum=0.0)
    result = item.run(graph, Context(data=data(), validation=data(seed=1)))
    assert not result.changed
    assert graph.fingerprint() == good
    assert result.notes["best_epoch"] == 0
    assert result.notes["stopped_early"]
    assert len(result.notes["losses"]) == 2
    assert len(result.notes["validation_accuracy"]) == 2


@pytest.mark.parametrize("monitor", ["accuracy", "loss"])
def test_early_stop_ends_on_the_best_epoch(monitor: str) -> None:
    graph, validation = net(), data(seed=1)
    item = Train(6, "sgd", 0.05, patience=6, monitor=monitor)
    notes = run(graph, item, validation=validation)
    key = "validation_accuracy" if monitor == "accuracy" else "validation_losses"
    best = max(notes[key]) if monitor == "accuracy" else min(notes[key])
    assert notes[key].index(best) + 1 == notes["best_epoch"]
    if monitor == "accuracy":
        assert accuracy(graph) == pytest.approx(best)


def test_validation_without_patience_only_watches() -> None:
    watched, alone = net(), net()
    notes = run(watched, Train(2), validation=data(seed=1))
    run(alone, Train(2))
    assert watched.fingerprint() == alone.fingerprint()
    assert notes["validation_accuracy"][-1] == pytest.approx(accuracy(watched))


def test_steps_bound_an_epoch_and_endless_data_works() -> None:
    class Endless:
        def __iter__(self) -> Iterator[Any]:
            while True:
                yield from data(32)

    notes = run(net(), Train(2, learning_rate=0.01, steps=3), data=Endless())
    assert notes["steps"] == 6


def test_distillation_needs_labels_only_for_hard_labels() -> None:
    teacher = net()
    run(teacher, Train(epochs=6, learning_rate=0.1))
    unlabelled = [images for images, _ in data()]
    torch.manual_seed(9)
    student = capture(Net(), (torch.zeros(1, 1, 8, 8),))
    hooks = InsertTeacherHooks(teacher, soft_labels=1.0, hard_labels=0.0, attention=1.0)
    hooks.run(student, Context())
    notes = run(student, Train(8, learning_rate=0.1), data=unlabelled)
    assert notes["losses"][-1] < 0.3 * notes["losses"][0]
    assert notes["accuracy"] == [None] * 8
    assert accuracy(student) > 0.9
    hard = net()
    InsertTeacherHooks(teacher).run(hard, Context())
    with pytest.raises(DataError, match="train needs labels"):
        Train().run(hard, Context(data=unlabelled))


def test_the_loss_is_the_weighted_sum() -> None:
    graph, teacher = net(), net()
    InsertTeacherHooks(teacher, 0.7, 3.0, 0.2, attention=0.5).run(graph, Context())
    (images, labels), *_ = data(16)
    flat = graph.module(images)
    own = [n.name for n in graph.outputs]
    pairs = [("relu", "teacher_relu"), ("relu_1", "teacher_relu_1")]
    expected = 0.7 * soft_label_loss(flat[0], flat[1], 3.0) + 0.2 * F.cross_entropy(flat[0], labels)
    for student, partner in pairs:
        expected += 0.5 * attention_loss(flat[own.index(student)], flat[own.index(partner)])
    torch.testing.assert_close(objective(graph, Context())(flat, labels), expected)


def test_a_loss_of_ones_own() -> None:
    seen: list[tuple[int, ...]] = []

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(outputs.shape))
        return (outputs.sum(1) - labels).square().mean()

    run(net(), Train(learning_rate=0.001), loss=loss)
    assert seen == [(16, 4)] * 8
    with pytest.raises(PassError, match="label_smoothing serves the default loss"):
        Train(label_smoothing=0.1).run(net(), Context(data=data(), loss=loss))


def quantized() -> Graph:
    context = Context(data=data())
    graph = net()
    run(graph, Train(epochs=2, learning_rate=0.1))
    return InsertQDQ().run(FoldBatchNorm().run(graph, context).graph, context).graph


def test_quantization_aware_training_keeps_scales_and_meaning() -> None:
    graph = quantized()
    text = graph.text()
    scales = {n: v.clone() for n, v in graph.attributes.items() if n.endswith(("scale", "point"))}
    notes = run(graph, Train(4, learning_rate=0.02))
    assert notes["losses"][-1] < notes["losses"][0]
    assert graph.text() == text
    for name, value in scales.items():
        assert torch.equal(graph.attribute(name), value), name
    integer = LowerToInteger().run(graph.copy(), Context()).graph
    images, _ = samples(seed=1)
    torch.testing.assert_close(graph(images), integer(images), rtol=0, atol=0)


def test_quantization_aware_training_keeps_batch_norm() -> None:
    context = Context(data=data())
    graph = net()
    graph = InsertQDQ().run(graph, context).graph  # not folded: a float operator of its own
    before = graph.attribute("bn.running_mean").clone()
    run(graph, Train(learning_rate=0.001))
    assert torch.equal(graph.attribute("bn.running_mean"), before)


def test_divergence_names_the_batch_and_harms_nothing() -> None:
    graph = net()
    with pytest.raises(PassError, match=r"batch \d of epoch 1; at train; lower the learning rate"):
        Train(learning_rate=1e30, schedule="constant").run(graph, Context(data=data()))
    assert graph.fingerprint() == net().fingerprint()
    assert not graph.training
    with pytest.raises(PassError, match="holds NaN or infinity after epoch 1"):
        Train(learning_rate=1e38, schedule="constant", weight_decay=1e38).run(
            graph, Context(data=data(16))
        )
    assert graph.fingerprint() == net().fingerprint()


def test_nothing_to_train() -> None:
    graph = net()
    for value in graph.parameters():
        value.requires_grad_(False)
    with pytest.raises(PassError, match="no trainable parameters"):
        Train().run(graph, Context(data=data()))


def test_a_loss_that_no_parameter_moves() -> None:
    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        del outputs
        return labels.float().mean()

    with pytest.raises(PassError, match="depends on no trainable parameter"):
        Train().run(net(), Context(data=data(), loss=loss))


def test_patience_needs_something_to_watch() -> None:
    with pytest.raises(DataError, match="patience needs validation data"):
        Train(patience=1).run(net(), Context(data=data()))

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(outputs[:, 0], labels)

    regression = [(images, labels.float()) for images, labels in data()]
    context = Context(data=regression, validation=regression, loss=loss)
    with pytest.raises(PassError, match='set monitor="loss"'):
        Train(patience=1).run(net(), context)
    Train(patience=1, monitor="loss").run(net(), context)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (None, "train needs data"),
        ([], "train got no batches"),
        ([images for images, _ in data(16)], "train needs labels"),
        ([(images, labels[:3]) for images, labels in data(16)], "don't fit the first output"),
        ([(images, labels.float()) for images, labels in data(16)], "don't fit the first output"),
        ([(images, labels + 9) for images, labels in data(16)], "don't fit the first output"),
        (map(list, data(16)), "needs to know how many batches"),
    ],
)
def test_bad_data(batches: Any, message: str) -> None:
    graph = net()
    with pytest.raises(DataError, match=message):
        Train().run(graph, Context(data=batches))
    assert graph.fingerprint() == net().fingerprint()


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


def test_values_that_the_optimizer_rejects() -> None:
    graph = net()
    with pytest.raises(OptionError, match="optimizer 'adamw'"):
        Train(optimizer="adamw", optimizer_options={"betas": [2.0, 0.9]}).run(
            graph, Context(data=data())
        )
    assert graph.fingerprint() == net().fingerprint()


def test_progress_is_shown() -> None:
    lines: list[str] = []

    class Shown(Progress):
        def status(self, text: str) -> None:
            lines.append(text)

    run(net(), Train(2, learning_rate=0.01), progress=Shown(), validation=data(16))
    assert [line.split(",")[0] for line in lines][-1] == "epoch 2/2"
    for word in ("loss", "accuracy", "validation loss", "it/s"):
        assert word in lines[-1]

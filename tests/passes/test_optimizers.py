"""The learning rate as a function of the step, against torch's own schedulers."""

import pytest
import torch

from planish.passes.training.optimizers import build_optimizer, learning_rate_at, optimizer_classes


def torch_rates(name: str, total: int, warm_up: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    schedulers = torch.optim.lr_scheduler
    if name == "cosine":
        scheduler = schedulers.CosineAnnealingLR(optimizer, total)
    else:
        scheduler = schedulers.OneCycleLR(optimizer, 0.4, total, pct_start=warm_up)
    rates: list[float] = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("name", "total", "warm_up"),
    [("cosine", 7, 0.3), ("one-cycle", 20, 0.3), ("one-cycle", 33, 0.15)],
)
def test_schedules_are_torchs(name: str, total: int, warm_up: float) -> None:
    found = [learning_rate_at(name, step, total, 0.4, warm_up) for step in range(total)]
    assert found == pytest.approx(torch_rates(name, total, warm_up))


@pytest.mark.parametrize("total", [1, 2, 3])
def test_short_trainings_have_a_rate(total: int) -> None:
    rates = [learning_rate_at("one-cycle", step, total, 0.4) for step in range(total)]
    assert all(0 < rate <= 0.4 for rate in rates)
    assert max(rates) == pytest.approx(0.4)


def test_steps_beyond_the_end_keep_the_last_rate() -> None:
    last = learning_rate_at("one-cycle", 9, 10, 0.4)
    assert learning_rate_at("one-cycle", 12, 10, 0.4) == last
    assert learning_rate_at("constant", 12, 10, 0.4) == 0.4


def test_optimizers_by_name() -> None:
    assert {"sgd", "adam", "adamw", "rmsprop", "nadam"} <= optimizer_classes().keys()
    assert not {"lbfgs", "sparseadam", "optimizer"} & optimizer_classes().keys()


def test_sgd_has_momentum_unless_told() -> None:
    def momentum(value: float | None) -> float:
        parameters = [torch.nn.Parameter(torch.zeros(2))]
        optimizer = build_optimizer(
            "sgd", parameters, learning_rate=1.0, weight_decay=0.0, momentum=value, options={}
        )
        return optimizer.param_groups[0]["momentum"]

    assert [momentum(value) for value in (None, 0.0, 0.5)] == [0.9, 0.0, 0.5]

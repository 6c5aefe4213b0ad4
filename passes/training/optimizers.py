"""Optimizers by name, and the learning rate as a function of the step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch

from planish.ir.errors import OptionError, unknown

SCHEDULES = ("one-cycle", "cosine", "constant")
_START = 25.0  # one-cycle starts at the peak divided by this ...
_END = 1e4  # ... and ends at that start divided by this; both are torch's defaults
# Those that Train can't serve: LBFGS wants the loss as a function, SparseAdam sparse gradients.
_UNFIT = ("LBFGS", "SparseAdam", "Optimizer")


def optimizer_classes() -> dict[str, type[torch.optim.Optimizer]]:
    """Return the optimizers of torch.optim by lower-case name: "sgd", "adamw", ..."""
    return {
        name.lower(): found
        for name, found in vars(torch.optim).items()
        if isinstance(found, type)
        and issubclass(found, torch.optim.Optimizer)
        and name not in _UNFIT
    }


def check_optimizer(name: str, momentum: float | None, options: dict[str, Any]) -> None:
    """Check that an optimizer exists and takes what it is given.

    Raises:
        OptionError: An unknown name or option (with the nearest), or momentum for an optimizer
            that has none.
    """
    classes = optimizer_classes()
    if name.lower() not in classes:
        raise unknown("optimizer", name.lower(), classes)
    taken = inspect.signature(classes[name.lower()]).parameters
    known = set(taken) - {"params", "lr", "weight_decay", "momentum"}
    for option in options:
        if option not in known:
            raise unknown(f"option of optimizer {name!r}", option, known)
    if momentum is not None and "momentum" not in taken:
        raise OptionError(
            f"optimizer {name!r} takes no momentum", cure="give betas in optimizer_options"
        )


def build_optimizer(
    name: str,
    parameters: Iterable[torch.nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    momentum: float | None,
    options: dict[str, Any],
) -> torch.optim.Optimizer:
    """Return an optimizer of torch.optim; SGD has a momentum of 0.9 unless another is given.

    Raises:
        OptionError: The optimizer rejects a value, or these parameters.
    """
    found = optimizer_classes()[name.lower()]
    taken = inspect.signature(found).parameters
    values: dict[str, Any] = {"lr": learning_rate, **options}
    if "weight_decay" in taken:
        values["weight_decay"] = weight_decay
    if momentum is None and found is torch.optim.SGD:
        momentum = 0.9
    if momentum is not None:
        values["momentum"] = momentum
    try:
        return found(list(parameters), **values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise OptionError(f"optimizer {name!r}: {error}", where="train") from error


def learning_rate_at(
    schedule: str, step: int, total: int, peak: float, warm_up: float = 0.3
) -> float:
    """Return the learning rate of one step.

    A function of the step alone, so that a resumed training has nothing to restore.

    Source: "one-cycle": Smith, Topin, "Super-Convergence" (2018), with cosine flanks as in
    torch.optim.lr_scheduler.OneCycleLR; "cosine": Loshchilov, Hutter, "SGDR" (ICLR 2017),
    equation 5, without restarts.

    Args:
        schedule: One of `SCHEDULES`.
        step: Counted from 0.
        total: Steps of the whole training.
        peak: The highest rate.
        warm_up: Share of the steps in which the one-cycle rate rises, 0..1.
    """
    if schedule == "constant":
        return peak
    step = min(step, total - 1)
    if schedule == "cosine":
        return _cosine(peak, 0.0, step / total)
    start = peak / _START
    top = warm_up * total - 1
    if step <= top and top > 0:
        return _cosine(start, peak, step / top)
    top = max(top, 0.0)
    rest = total - 1 - top
    return _cosine(peak, start / _END, (step - top) / rest if rest > 0 else 0.0)


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2

"""Checkpoints of a training: one safetensors file whose metadata holds the rest as JSON. No pickle.

The tensors are named graph/<tensor>, best/<tensor>, optimizer/<parameter>/<state> (number/... where
the state is a plain number) and random/<generator>.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from planish.ir.errors import PassError
from planish.ir.files import write_beside

FORMAT = "planish-training-1"


@dataclass
class Log:
    """How a training went; one entry an epoch in each list.

    Attributes:
        losses: Mean training loss.
        accuracy: Share of the training samples classified right while training, 0..1.
        validation_losses: Mean loss on the validation data.
        validation_accuracy: Share of the validation samples classified right, 0..1.
        steps: Steps made in all.
        best_epoch: Epoch whose weights are kept, from 1; 0 are the weights before training.
        best_score: What the early stop compares; None without one.
        waited: Epochs since the best.
        stopped: Whether the early stop ended the training.
    """

    losses: list[float] = field(default_factory=list)
    accuracy: list[float | None] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    validation_accuracy: list[float | None] = field(default_factory=list)
    steps: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    waited: int = 0
    stopped: bool = False

    @property
    def epochs(self) -> int:
        """Epochs completed."""
        return len(self.losses)


@dataclass
class Checkpoint:
    """A training between two epochs.

    Attributes:
        identity: What it belongs to: the graph it began with, options, seed.
        log: How it went so far.
        tensors: Everything else, by name.
    """

    identity: dict[str, Any]
    log: Log
    tensors: dict[str, torch.Tensor]


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint beside `path`, then rename it into place.

    Raises:
        PlanishError: The file can't be written; an older one is untouched.
    """
    head = {"identity": checkpoint.identity, "log": asdict(checkpoint.log)}
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in checkpoint.tensors.items()
    }
    write_beside(path, safetensors.torch.save(tensors, {FORMAT: json.dumps(head)}))


def load_checkpoint(path: str | os.PathLike[str], identity: dict[str, Any]) -> Checkpoint | None:
    """Read the checkpoint at `path`; None if there is no file.

    Raises:
        PassError: The file is no checkpoint, or one of another training.
    """
    if not Path(path).exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            head = json.loads((stream.metadata() or {})[FORMAT])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        checkpoint = Checkpoint(head["identity"], Log(**head["log"]), tensors)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise PassError(
            "not a checkpoint of train, or a damaged one",
            where=os.fspath(path),
            cure="delete it or name another file",
        ) from error
    # Compared as JSON, which is how the identity was written: tuples are lists there.
    wanted, known = json.loads(json.dumps(identity)), checkpoint.identity
    if known != wanted:
        other = [key for key in wanted if known.get(key) != wanted[key]]
        raise PassError(
            f"the checkpoint is of another training: another {', another '.join(other)}",
            where=os.fspath(path),
            cure="delete it to begin anew, or name another file",
        )
    return checkpoint


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return an optimizer's state by name; plain numbers as float64 scalars."""
    found: dict[str, torch.Tensor] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                found[f"optimizer/{index}/{key}"] = value
            elif value is not None:
                found[f"number/{index}/{key}"] = torch.tensor(value, dtype=torch.float64)
    return found


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    tensors: dict[str, torch.Tensor],
) -> None:
    """Give a new optimizer of `parameters` the state that `optimizer_tensors` returned."""
    states: dict[int, dict[str, Any]] = {}
    for name, value in named("number", tensors).items():
        index, _, key = name.partition("/")
        number = float(value)
        states.setdefault(int(index), {})[key] = int(number) if number.is_integer() else number
    for name, value in named("optimizer", tensors).items():
        index, _, key = name.partition("/")
        states.setdefault(int(index), {})[key] = _laid_out(value, parameters[int(index)])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def _laid_out(value: torch.Tensor, parameter: torch.nn.Parameter) -> torch.Tensor:
    """Give a state its parameter's strides: a kernel over unlike strides may round otherwise."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def named(kind: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors named `kind/...`, without that prefix."""
    return {
        name.removeprefix(f"{kind}/"): value
        for name, value in tensors.items()
        if name.startswith(f"{kind}/")
    }


def prefixed(kind: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the tensors under `kind/name`: the inverse of `named`."""
    return {f"{kind}/{name}": value for name, value in tensors}

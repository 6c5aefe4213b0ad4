"""Train: fine-tuning, distillation and quantization-aware training, in place."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from planish.ir.errors import PassError, unknown
from planish.ir.graph import Graph
from planish.ir.level import Level

from .base import Pass, PassResult, check_option, check_types
from .context import Context
from .distillation.teacher_hooks import HOOKS
from .training.checkpoint import Log
from .training.optimizers import SCHEDULES, check_optimizer
from .training.trained_biases import round_trained_biases
from .training.training_loop import Loop
from .training.training_setting import copy_in, placed, seeded, trained_tensors

_MONITORS = ("accuracy", "loss")


@dataclass(frozen=True)
class Train(Pass):
    """Train the graph's parameters on the context's data.

    With labels alone it minimizes the context's loss (cross entropy by default); in a graph with
    teacher hooks the weighted losses of those; on the quantized level it is quantization-aware
    training: weights and activations pass through fake-quantize, whose scales stay as they are,
    and in the end biases are rounded to what the integer operators represent.

    Options: `epochs` over the data, of at most `steps` batches each. `optimizer` is any of
    torch.optim by name, with `learning_rate` at its peak, `weight_decay`, `momentum` (None: 0.9
    for SGD) and, for the rest, `optimizer_options`. `schedule` is "one-cycle" (rising during
    the share `warm_up` of the steps), "cosine" or "constant". `label_smoothing` serves the default
    loss. `clip_gradient` bounds the norm of the gradient. `patience` ends the training after so
    many epochs without a better `monitor` ("accuracy" or "loss" on `context.validation`) and keeps
    the best weights, be it those from before training. `checkpoint` names a file that is written
    after each epoch; where it exists, training goes on from it and ends as if never interrupted.

    Rewrite: nodes stay; parameters and the running statistics of batch norm change (statistics
    not on the quantized level, nor a teacher's). The graph is left in eval mode.

    Checks: something is trainable; labels are there where the loss reads them; the schedule knows
    the number of batches; a loss or weight that becomes NaN or infinite is an error that names the
    batch and leaves the weights as they were; a checkpoint belongs to this graph and these options.

    Equal data, options and seed give equal weights, bit for bit, on the same number of threads.
    torch is seeded, and the order of the batches is the data's own: shuffle with torch's
    generators, or with a `set_epoch(epoch)` method, which is called before each epoch.

    Source: Hinton et al. 2015 (distillation, see `distillation_losses`); Jacob et al.,
    "Quantization and Training of Neural Networks" (CVPR 2018), section 3 (training with fake
    quantization); Bengio et al. 2013, section 4 (straight-through gradients).
    """

    name: ClassVar[str] = "train"
    requires: ClassVar[tuple[Level, ...]] = (Level.CANONICAL, Level.QUANTIZED)
    tolerates: ClassVar[frozenset[str]] = frozenset({HOOKS})
    needs_data: ClassVar[bool] = True

    epochs: int = 1
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    schedule: str = "one-cycle"
    warm_up: float = 0.3
    weight_decay: float = 1e-4
    momentum: float | None = None
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    label_smoothing: float = 0.0
    steps: int | None = None
    clip_gradient: float | None = None
    patience: int | None = None
    monitor: str = "accuracy"
    checkpoint: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Check the options and make them plain values."""
        options = self.optimizer_options.items()
        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in options}
        object.__setattr__(self, "optimizer_options", plain)
        if self.checkpoint is not None:
            object.__setattr__(self, "checkpoint", os.fspath(self.checkpoint))
        check_types(self)
        for option in ("epochs", "steps", "patience"):
            count = getattr(self, option)
            left_out = count is None and option != "epochs"
            good = left_out or (isinstance(count, int) and count >= 1)
            check_option(good, f"{option} is {count!r}, must be a number of 1 or more", self.name)
        for option in ("learning_rate", "clip_gradient"):
            value = getattr(self, option)
            good = value is None or (math.isfinite(value) and value > 0)
            check_option(good, f"{option} is {value}, must be above 0", self.name)
        for option in ("warm_up", "label_smoothing"):
            value = getattr(self, option)
            check_option(0 <= value < 1, f"{option} is {value}, must be in [0, 1)", self.name)
        check_option(self.weight_decay >= 0, "weight_decay is below 0", self.name)
        for option, choices in (("schedule", SCHEDULES), ("monitor", _MONITORS)):
            value = getattr(self, option)
            if value not in choices:
                raise unknown(option, value, choices)
        check_optimizer(self.optimizer, self.momentum, self.optimizer_options)

    def run(self, graph: Graph, context: Context) -> PassResult:
        """Train; see the class."""
        if not any(p.requires_grad for p in graph.parameters()):
            raise PassError("the graph has no trainable parameters", where=self.name)
        if self.label_smoothing and context.loss is not None:
            raise PassError(
                "label_smoothing serves the default loss, but the context has its own",
                where=self.name,
                cure="smooth the labels in that loss",
            )
        before = {name: value.detach().clone() for name, value in trained_tensors(graph).items()}
        log = self._train(graph, context, before)
        if graph.level == Level.QUANTIZED:
            round_trained_biases(graph)
        after = trained_tensors(graph)
        changed = any(not torch.equal(value, after[name]) for name, value in before.items())
        return PassResult(graph, changed, notes=_notes(log))

    def _train(self, graph: Graph, context: Context, before: dict[str, torch.Tensor]) -> Log:
        """Run the loop; an error leaves the graph as it was."""
        identity = self._identity(graph, context) if self.checkpoint is not None else {}
        done = False
        try:
            with seeded(context.seed, context.device), placed(graph, context.device):
                log = Loop(graph, context, self, identity).run()
            done = True
            return log
        finally:
            if not done:
                copy_in(graph, before)

    def _identity(self, graph: Graph, context: Context) -> dict[str, Any]:
        """Return what a checkpoint must belong to: the weights it began with and all options."""
        options = {key: value for key, value in self.options().items() if key != "checkpoint"}
        return {"graph": graph.fingerprint(), "options": options, "seed": context.seed}


def _notes(log: Log) -> dict[str, Any]:
    notes: dict[str, Any] = {
        "losses": log.losses,
        "accuracy": log.accuracy,
        "steps": log.steps,
        "best_epoch": log.best_epoch if log.best_score is not None else log.epochs,
        "stopped_early": log.stopped,
    }
    if log.validation_losses:
        notes["validation_losses"] = log.validation_losses
        notes["validation_accuracy"] = log.validation_accuracy
    return notes

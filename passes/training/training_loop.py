"""The training loop: epochs over the context's data, validation, checkpoints, the best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from planish.ir.errors import DataError, PassError
from planish.ir.graph import Graph

from ..context import Context, with_labels
from ..data import Batch, batches
from ..distillation.teacher_hooks import student_module
from .checkpoint import (
    Checkpoint,
    Log,
    load_checkpoint,
    named,
    optimizer_tensors,
    prefixed,
    restore_optimizer,
    save_checkpoint,
)
from .objective import Flat, accuracy_counts, objective, task_loss
from .optimizers import build_optimizer, learning_rate_at
from .training_setting import (
    copy_in,
    generator_states,
    layout,
    restore_generators,
    set_training_mode,
    trained_tensors,
)

if TYPE_CHECKING:
    from ..train import Train

_SHOW_EVERY = 0.5  # seconds between two status lines


class Loop:
    """One run of `Train` on one graph. Build and run it under `seeded` and `placed`.

    Args:
        graph: Trained in place.
        context: Data, device and progress.
        options: The pass.
        identity: What a checkpoint must belong to.
    """

    def __init__(
        self, graph: Graph, context: Context, options: Train, identity: dict[str, Any]
    ) -> None:
        self.graph, self.context, self.options = graph, context, options
        self.log = Log()
        self._identity = identity
        self._layout = layout(graph)
        self._parameters = [p for p in graph.parameters() if p.requires_grad]
        self._optimizer = build_optimizer(
            options.optimizer,
            self._parameters,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            momentum=options.momentum,
            options=options.optimizer_options,
        )
        self._objective = objective(graph, context, options.label_smoothing)
        self._steps = self._steps_an_epoch()
        self._best: dict[str, torch.Tensor] = {}
        self._student = student_module(graph) if context.validation is not None else None

    def run(self) -> Log:
        """Train until the epochs are over or the early stop ends it; keep the best weights."""
        set_training_mode(self.graph)
        if not self._resume() and self.options.patience is not None:
            self._judge(*self._validate())
        while self.log.epochs < self.options.epochs and not self.log.stopped:
            self._epoch(self.log.epochs)
            self._checkpoint()
        if self._best:
            copy_in(self.graph, self._best)
        return self.log

    def _epoch(self, epoch: int) -> None:
        samples = right = counted = index = 0
        total = 0.0
        began = shown = time.monotonic()
        for index, batch in enumerate(self._track(epoch)):
            inputs, labels = self._place(batch)
            outputs, loss = self._step(epoch, index, inputs, labels)
            samples += batch.size
            total += loss * batch.size
            counts = accuracy_counts(outputs, labels)
            if counts is not None:
                right, counted = right + counts[0], counted + counts[1]
            now = time.monotonic()
            if now - shown >= _SHOW_EVERY:
                shown = now
                self._status(epoch, total / samples, right, counted, (index + 1) / (now - began))
        self._check_weights(epoch)
        self.log.losses.append(total / samples)
        self.log.accuracy.append(right / counted if counted else None)
        if self._student is not None:
            self._judge(*self._validate(), epoch=epoch + 1)
        seconds = max(time.monotonic() - began, 1e-9)
        self._status(epoch, total / samples, right, counted, (index + 1) / seconds)

    def _track(self, epoch: int) -> Iterable[Batch]:
        """Yield the epoch's batches, checked, on the device, shown as progress."""
        set_epoch = getattr(self.context.data, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
        stream = self.context.batches(self.graph, self.options.name)
        if self._objective.needs_labels:
            stream = with_labels(stream, self.options.name)
        limited = islice(stream, self.options.steps)
        title = f"epoch {epoch + 1}/{self.options.epochs}"
        return self.context.progress.track(limited, title, self._steps)

    def _step(
        self, epoch: int, index: int, inputs: list[torch.Tensor], labels: torch.Tensor | None
    ) -> tuple[Flat, float]:
        """Make one step; return the outputs and the loss."""
        options = self.options
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(epoch, index)
        outputs = list(self.graph.module(*inputs))
        loss = self._objective(outputs, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value} at batch {index} of epoch {epoch + 1}")
        if not loss.requires_grad:
            raise PassError("the loss depends on no trainable parameter", where=options.name)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if options.clip_gradient is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, options.clip_gradient)
        self._optimizer.step()
        self.log.steps += 1
        return outputs, value

    def _rate(self, epoch: int, index: int) -> float:
        options = self.options
        if self._steps is None:
            return options.learning_rate
        step, total = epoch * self._steps + index, options.epochs * self._steps
        return learning_rate_at(
            options.schedule, step, total, options.learning_rate, options.warm_up
        )

    def _place(self, batch: Batch) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        inputs = [value.to(self.context.device) for value in batch.inputs]
        inputs = [v.contiguous(memory_format=self._layout) if v.dim() == 4 else v for v in inputs]
        labels = batch.labels
        return inputs, None if labels is None else labels.to(self.context.device)

    def _validate(self) -> tuple[float, float | None]:
        """Return mean task loss and accuracy of the student on the validation data."""
        if self._student is None:
            raise DataError(
                "patience needs validation data",
                where=self.options.name,
                cure="pass validation=... to Pipeline.run, or leave patience out",
            )
        loss = task_loss(self.graph, self.context)
        total, samples, right, counted = 0.0, 0, 0, 0
        purpose = f"validation of {self.options.name}"
        stream = with_labels(batches(self.context.validation, self.graph, purpose), purpose)
        with torch.no_grad():
            for batch in stream:
                inputs, labels = self._place(batch)
                outputs = list(self._student(*inputs))
                total += float(loss(outputs, labels)) * batch.size
                samples += batch.size
                counts = accuracy_counts(outputs, labels)
                if counts is not None:
                    right, counted = right + counts[0], counted + counts[1]
        return total / samples, right / counted if counted else None

    def _judge(self, loss: float, accuracy: float | None, epoch: int = 0) -> None:
        """Log a validation; with an early stop, keep the best weights and count the wait."""
        log, patience = self.log, self.options.patience
        if epoch:
            log.validation_losses.append(loss)
            log.validation_accuracy.append(accuracy)
        if patience is None:
            return
        if self.options.monitor == "accuracy" and accuracy is None:
            raise PassError(
                "there is no accuracy to monitor: the first output isn't logits [N, classes] "
                "of labels [N]",
                where=self.options.name,
                cure='set monitor="loss"',
            )
        score = -loss if self.options.monitor == "loss" else accuracy
        assert score is not None
        if log.best_score is None or score > log.best_score:
            log.best_score, log.best_epoch, log.waited = score, epoch, 0
            self._best = {n: v.detach().clone() for n, v in trained_tensors(self.graph).items()}
            return
        log.waited += 1
        log.stopped = log.waited >= patience

    def _status(self, epoch: int, loss: float, right: int, counted: int, rate: float) -> None:
        parts = [f"epoch {epoch + 1}/{self.options.epochs}", f"loss {loss:.4f}"]
        if counted:
            parts.append(f"accuracy {right / counted:.2%}")
        if len(self.log.validation_losses) > epoch:
            share = self.log.validation_accuracy[epoch]
            parts.append(f"validation loss {self.log.validation_losses[epoch]:.4f}")
            parts += [f"accuracy {share:.2%}"] if share is not None else []
        self.context.progress.status(", ".join([*parts, f"{rate:.1f} it/s"]))

    def _check_weights(self, epoch: int) -> None:
        for name, value in trained_tensors(self.graph).items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise self._diverged(f"{name!r} holds NaN or infinity after epoch {epoch + 1}")

    def _diverged(self, what: str) -> PassError:
        rate = self.options.learning_rate
        cure = f"lower the learning rate (it is {rate:g}) or bound the gradient with clip_gradient"
        return PassError(what, where=self.options.name, cure=cure)

    def _steps_an_epoch(self) -> int | None:
        """Return the batches of an epoch; None where unknown and not needed."""
        data, limit = self.context.data, self.options.steps
        if data is None:
            return None  # the first batch will say so
        try:
            known = len(data)  # type: ignore[arg-type]
        except TypeError:
            known = None
        if known is not None and limit is not None:
            return min(known, limit)
        if known is None and limit is None and self.options.schedule != "constant":
            raise DataError(
                f"the {self.options.schedule} schedule needs to know how many batches there are",
                where=self.options.name,
                cure='give steps=..., data with a length, or schedule="constant"',
            )
        return known or limit

    def _checkpoint(self) -> None:
        if self.options.checkpoint is None:
            return
        tensors = {
            **prefixed("graph", trained_tensors(self.graph).items()),
            **prefixed("best", self._best.items()),
            **optimizer_tensors(self._optimizer),
            **prefixed("random", generator_states(self.context).items()),
        }
        save_checkpoint(self.options.checkpoint, Checkpoint(self._identity, self.log, tensors))

    def _resume(self) -> bool:
        """Take up the checkpoint, if there is one."""
        if self.options.checkpoint is None:
            return False
        found = load_checkpoint(self.options.checkpoint, self._identity)
        if found is None:
            return False
        self.log = found.log
        copy_in(self.graph, named("graph", found.tensors))
        self._best = named("best", found.tensors)
        restore_optimizer(self._optimizer, self._parameters, found.tensors)
        restore_generators(self.context, named("random", found.tensors))
        return True

"""What training minimizes: the task's loss, or the weighted losses of teacher hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from planish.ir.calling import nest_structure
from planish.ir.errors import DataError, PassError
from planish.ir.graph import Graph

from ..context import Context
from ..distillation.distillation_losses import attention_loss, feature_loss, soft_label_loss
from ..distillation.teacher_hooks import HOOKS

Flat = list[torch.Tensor]
Loss = Callable[[Flat, torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True)
class Objective:
    """The loss of a batch from the flat outputs of the graph and the labels.

    Attributes:
        needs_labels: Whether the loss reads them.
        terms: (weight, loss) of which the objective is the sum.
    """

    needs_labels: bool
    terms: tuple[tuple[float, Loss], ...]

    def __call__(self, outputs: Flat, labels: torch.Tensor | None) -> torch.Tensor:
        """Return the weighted sum, a scalar."""
        total = torch.zeros((), device=outputs[0].device)
        for weight, loss in self.terms:
            total = total + weight * loss(outputs, labels)
        return total


def objective(graph: Graph, context: Context, label_smoothing: float = 0.0) -> Objective:
    """Return what to minimize: the teacher hooks' losses if there are any, else the task's.

    Raises:
        PassError: The annotation names a loss that doesn't exist.
    """
    task = task_loss(graph, context, label_smoothing)
    if HOOKS not in graph.annotations:
        return Objective(True, ((1.0, task),))
    items: list[dict[str, Any]] = graph.annotations[HOOKS]["losses"]
    needs_labels = any(item["kind"] == "hard-labels" for item in items)
    return Objective(needs_labels, tuple((float(i["weight"]), _term(i, task)) for i in items))


def task_loss(graph: Graph, context: Context, label_smoothing: float = 0.0) -> Loss:
    """Return the context's loss, or the cross entropy of the first output."""

    def cross_entropy(outputs: Flat, labels: torch.Tensor | None) -> torch.Tensor:
        assert labels is not None
        try:
            return F.cross_entropy(outputs[0], labels, label_smoothing=label_smoothing)
        except (RuntimeError, ValueError, IndexError) as error:
            raise DataError(
                f"labels {list(labels.shape)} of {labels.dtype} don't fit the first output "
                f"{list(outputs[0].shape)}: {str(error).splitlines()[0]}",
                cure="give class numbers as int64 [N], or a loss of your own",
            ) from error

    def own(outputs: Flat, labels: torch.Tensor | None) -> torch.Tensor:
        assert context.loss is not None
        assert labels is not None
        return context.loss(nest_structure(graph.structure, outputs), labels)

    return own if context.loss is not None else cross_entropy


def _term(item: dict[str, Any], task: Loss) -> Loss:
    kind = item["kind"]
    if kind == "hard-labels":
        return task
    if kind not in ("soft-labels", "features", "attention"):
        raise PassError(f"unknown distillation loss {kind!r}", where="annotation teacher-hooks")
    student, teacher = item["student"], item["teacher"]

    def distill(outputs: Flat, labels: torch.Tensor | None) -> torch.Tensor:
        del labels
        if kind == "soft-labels":
            return soft_label_loss(outputs[student], outputs[teacher], item["temperature"])
        loss = feature_loss if kind == "features" else attention_loss
        return loss(outputs[student], outputs[teacher])

    return distill


def accuracy_counts(outputs: Flat, labels: torch.Tensor | None) -> tuple[int, int] | None:
    """Return how many samples are classified right, and of how many; None if these are no classes.

    Args:
        outputs: Flat outputs; the first is taken as logits [N, classes].
        labels: Class numbers, integers [N].
    """
    if labels is None or outputs[0].dim() != 2 or labels.dim() != 1 or labels.is_floating_point():
        return None
    return int((outputs[0].argmax(1) == labels).sum()), len(labels)

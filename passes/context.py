"""What passes need from outside: data, seed, target, training loss, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
import torch.nn.functional as F

from planish.ir.errors import DataError

from .data import Batch, batches

if TYPE_CHECKING:
    from planish.ir.graph import Graph

Item = TypeVar("Item")


class TargetTraits(Protocol):
    """What passes ask of a target; `planish.backends.Target` has it."""

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    @property
    def channel_multiple(self) -> int:
        """Channels are rounded to a multiple of this, because the vectors like it."""
        ...

    @property
    def activation_dtype(self) -> str:
        """Dtype of quantized activations: "uint8" or "int8"."""
        ...


class Progress:
    """Reports on long work; this one is silent. The command line gives one that draws bars."""

    def track(
        self, items: Iterable[Item], description: str, total: int | None = None
    ) -> Iterator[Item]:
        """Yield `items`, reporting each as a step of `description`."""
        del description, total
        yield from items

    def status(self, text: str) -> None:
        """Show one short line about what is going on ("epoch 2, loss 0.31")."""
        del text


@dataclass
class Context:
    """What a pipeline hands to each pass.

    Attributes:
        data: Batches for calibration and training: any iterable that can be iterated again.
        validation: Batches with labels to measure on while training (early stop), or None.
        loss: `loss(outputs, labels)` for training; cross entropy of the first output by default.
        target: The hardware that the graph is for, or None.
        seed: Of everything random.
        device: Where training and calibration run.
        progress: Where long work is reported.
        original: The graph as it entered the pipeline, which sets this; a distillation's teacher.
    """

    data: Iterable[Any] | None = None
    validation: Iterable[Any] | None = None
    loss: Callable[[Any, torch.Tensor], torch.Tensor] | None = None
    target: TargetTraits | None = None
    seed: int = 0
    device: str = "cpu"
    progress: Progress = field(default_factory=Progress)
    original: Graph | None = None

    def batches(self, graph: Graph, purpose: str) -> Iterator[Batch]:
        """Yield the checked batches of `data`; see `planish.passes.data.batches`."""
        return batches(self.data, graph, purpose)

    def labelled(self, graph: Graph, purpose: str) -> Iterator[Batch]:
        """Yield the checked batches of `data`, each of which must have labels."""
        return with_labels(self.batches(graph, purpose), purpose)

    def task_loss(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Return the training loss of a model's outputs against the labels."""
        if self.loss is not None:
            return self.loss(outputs, labels)
        logits = outputs[0] if isinstance(outputs, tuple | list) else outputs
        return F.cross_entropy(logits, labels)


def with_labels(stream: Iterable[Batch], purpose: str) -> Iterator[Batch]:
    """Yield batches, raising DataError at one without labels."""
    for batch in stream:
        if batch.labels is None:
            raise DataError(f"{purpose} needs labels", cure="yield (inputs, labels) batches")
        yield batch

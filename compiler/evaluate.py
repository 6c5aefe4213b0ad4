"""Running a model over data: outputs, answers and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from planish.ir.errors import DataError
from planish.passes.context import Progress, with_labels
from planish.passes.data import batches

if TYPE_CHECKING:
    from planish.ir.graph import Graph


@contextmanager
def evaluating(graph: Graph) -> Iterator[None]:
    """Put a graph into evaluation mode without gradients; afterwards back into its own mode."""
    training = graph.training
    graph.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if training:
            graph.train()


def graph_outputs(
    graph: Graph,
    data: Iterable[Any],
    progress: Progress | None = None,
    description: str = "evaluate",
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return a graph's first output on all of `data`, and the labels where there are some.

    Args:
        graph: At any level.
        data: Any iterable of batches (see `planish.passes.data.batches`).
        progress: Where to report.
        description: What it is for, in the report of progress and in errors.

    Returns:
        Outputs [n, ...] and labels [n] (or None).

    Raises:
        DataError: The data doesn't fit the graph.
    """
    outputs: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    stream = batches(data, graph, description)
    total = len(data) if hasattr(data, "__len__") else None  # type: ignore[arg-type]
    with evaluating(graph):
        for batch in (progress or Progress()).track(stream, description, total):
            outputs.append(first_output(graph(*batch.inputs)))
            if batch.labels is not None:
                labels.append(batch.labels.numpy())
    return np.concatenate(outputs), np.concatenate(labels) if labels else None


def graph_accuracy(
    graph: Graph,
    data: Iterable[Any],
    progress: Progress | None = None,
    description: str = "evaluate",
) -> float:
    """Return the share of samples whose largest output is the labelled class, 0..1.

    Raises:
        DataError: The data doesn't fit the graph or has no labels.
    """
    right = count = 0
    stream = with_labels(batches(data, graph, description), description)
    total = len(data) if hasattr(data, "__len__") else None  # type: ignore[arg-type]
    with evaluating(graph):
        for batch in (progress or Progress()).track(stream, description, total):
            assert batch.labels is not None
            scores = first_output(graph(*batch.inputs))
            labels = _classes(batch.labels.numpy(), scores, description)
            right += int((scores.argmax(1) == labels).sum())
            count += batch.size
    return right / count


def _classes(labels: NDArray[Any], scores: NDArray[Any], description: str) -> NDArray[Any]:
    """Return the labels of one batch, checked against the scores [n, classes]."""
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"labels {list(labels.shape)} of {labels.dtype} don't fit outputs {list(scores.shape)}",
            where=description,
            cure="give one whole number a sample: its class",
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < scores.shape[1]:
        raise DataError(
            f"labels from {labels.min()} to {labels.max()} for {scores.shape[1]} classes",
            where=description,
        )
    return labels


def artifact_outputs(
    run: Callable[[NDArray[Any]], Any],
    inputs: NDArray[Any],
    progress: Progress | None = None,
    description: str = "evaluate",
) -> NDArray[Any]:
    """Return a compiled model's first output, run one sample at a time.

    Args:
        run: Takes [1, ...], returns the model's outputs.
        inputs: [n, ...].
        progress: Where to report.
        description: What it is for.

    Returns:
        [n, ...].
    """
    rows: list[NDArray[Any]] = []
    samples = (inputs[index : index + 1] for index in range(len(inputs)))
    for sample in (progress or Progress()).track(samples, description, len(inputs)):
        rows.append(np.array(first_output(run(sample))))
    return np.concatenate(rows)


def accuracy(outputs: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the share of rows whose largest entry is the labelled class, 0..1.

    Args:
        outputs: [n, classes].
        labels: int [n].
    """
    return float((outputs.argmax(1) == labels).mean())


def first_output(outputs: Any) -> NDArray[Any]:
    """Return the first of a model's outputs, however they are nested, as an array."""
    while isinstance(outputs, tuple | list | dict):
        outputs = next(iter(outputs.values() if isinstance(outputs, dict) else outputs))
    if isinstance(outputs, torch.Tensor):
        return outputs.detach().numpy()
    return np.asarray(outputs)

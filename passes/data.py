"""Batches: any iterable of arrays, tensors, tuples or dicts, checked and made tensors one by one.

Nothing is collected, so memory does not grow with the number of batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from planish.ir.errors import DataError
from planish.ir.signature import InputSpec, check_input

if TYPE_CHECKING:
    from planish.ir.graph import Graph

_LABEL_NAMES = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True)
class Batch:
    """One batch: the model's inputs in order, and labels where the data has them."""

    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor | None

    @property
    def size(self) -> int:
        """The number of samples."""
        return int(self.inputs[0].shape[0])


def batches(data: Iterable[Any] | None, graph: Graph, purpose: str) -> Iterator[Batch]:
    """Yield the checked batches of `data`.

    A batch is an array (one input), a tuple or list (the inputs in order, then optionally the
    labels), or a dict by input name (labels under "labels"). Values may be NumPy arrays, tensors
    or anything that torch.as_tensor takes.

    Args:
        data: Any iterable of batches; iterated anew at each call.
        graph: The graph whose inputs the batches must fit.
        purpose: What for, in messages: "insert-qdq".

    Raises:
        DataError: No data, an empty iterable, a batch of wrong count, shape or dtype, or one with
            NaN or infinity; names the batch.
    """
    if data is None:
        raise DataError(f"{purpose} needs data", cure="pass data=... to Pipeline.run")
    if not isinstance(data, Iterable):
        raise DataError(
            f"{purpose} got a {type(data).__name__} as data", cure="give an iterable of batches"
        )
    count = 0
    for index, raw in enumerate(data):
        yield _batch(raw, graph.inputs, f"{purpose}, batch {index}")
        count += 1
    if count == 0:
        raise DataError(
            f"{purpose} got no batches",
            cure="the data is empty, or a generator that was used up: pass a list or a DataLoader",
        )


def _batch(raw: Any, specs: list[InputSpec], where: str) -> Batch:
    values, labels = _split(raw, specs, where)
    tensors = tuple(_input(spec, v, where) for spec, v in zip(specs, values, strict=True))
    return Batch(tensors, None if labels is None else torch.as_tensor(labels))


def _split(raw: Any, specs: list[InputSpec], where: str) -> tuple[list[Any], Any]:
    names = [spec.name for spec in specs]
    if isinstance(raw, dict):
        missing = [name for name in names if name not in raw]
        if missing:
            raise DataError(f"the batch has no {missing}; it has {sorted(raw)}", where=where)
        label = next(
            (raw[name] for name in _LABEL_NAMES if name in raw and name not in names), None
        )
        return [raw[name] for name in names], label
    if not isinstance(raw, tuple | list):
        raw = [raw]
    if len(raw) == len(specs):
        return list(raw), None
    if len(raw) == len(specs) + 1:
        return list(raw[:-1]), raw[-1]
    raise DataError(
        f"the batch has {len(raw)} entries, the model takes {len(specs)} inputs "
        "(and one more entry would be the labels)",
        where=where,
    )


def _input(spec: InputSpec, value: Any, where: str) -> torch.Tensor:
    try:
        tensor = check_input(spec, value)
    except DataError as error:
        raise DataError(error.what, where=where, cure=error.cure) from error
    if tensor.dim() and tensor.shape[0] == 0:
        raise DataError(f"input {spec.name!r} has no samples", where=where)
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise DataError(f"input {spec.name!r} holds NaN or infinity", where=where)
    return tensor

"""Whether a pass keeps the outputs that it promises to keep, on sample inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from planish.ir.calling import flatten_structure
from planish.ir.errors import PipelineError
from planish.ir.graph import Graph
from planish.ir.level import Numerics
from planish.ir.signature import InputSpec
from planish.passes.base import Pass
from planish.passes.data import batches

from .evaluate import evaluating

# Float rounding: the largest difference allowed, as a share of the output's largest magnitude.
CLOSE = 1e-4
_SAMPLES = 8  # of the first batch


@dataclass(frozen=True)
class Samples:
    """Inputs that a graph is run on before and after a pass."""

    inputs: tuple[torch.Tensor, ...]

    def outputs(self, graph: Graph) -> list[torch.Tensor]:
        """Return the graph's outputs, flat."""
        flat: list[Any] = []
        with evaluating(graph):
            flatten_structure(graph(*self.inputs), flat)
        return flat


def sample_inputs(graph: Graph, data: Iterable[Any] | None, seed: int) -> Samples:
    """Return a few samples of the first batch of `data`, or random ones if there is no data."""
    if data is None:
        generator = torch.Generator().manual_seed(seed)
        return Samples(tuple(random_input(spec, generator) for spec in graph.inputs))
    first = next(batches(data, graph, "numeric check"))
    open_batch = all(spec.shape and spec.shape[0] is None for spec in graph.inputs)
    keep = _SAMPLES if open_batch else None
    return Samples(tuple(value[:keep] for value in first.inputs))


def random_input(spec: InputSpec, generator: torch.Generator, batch: int = 2) -> torch.Tensor:
    """Return a random tensor that fits the spec: normal floats, or integers 0 and 1."""
    sizes = [batch if size is None else size for size in spec.shape]
    if spec.dtype.is_floating_point:
        return torch.randn(sizes, generator=generator).to(spec.dtype)
    return torch.randint(0, 2, sizes, generator=generator).to(spec.dtype)


def check_preserved(item: Pass, before: list[torch.Tensor], after: list[torch.Tensor]) -> None:
    """Raise PipelineError if a pass changed the outputs more than it promises.

    Args:
        item: The pass; its `preserves` says what it promises.
        before: Outputs of the graph that it was given.
        after: Outputs of the graph that it left, on the same inputs.
    """
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if item.preserves is Numerics.EXACT:
            if not torch.equal(old, new):
                raise _broken(item, index, "equal", _distance(old, new))
        elif not _distance(old, new) <= CLOSE:  # NaN is not close either
            raise _broken(item, index, f"within {CLOSE:g} of their range", _distance(old, new))


def _distance(old: torch.Tensor, new: torch.Tensor) -> float:
    """Largest difference, as a share of the largest magnitude; infinite for unlike shapes."""
    if old.shape != new.shape:
        return float("inf")
    if old.numel() == 0:
        return 0.0
    scale = max(float(old.double().abs().max()), 1e-12)
    return float((old.double() - new.double()).abs().max()) / scale


def _broken(item: Pass, index: int, promise: str, distance: float) -> PipelineError:
    return PipelineError(
        f"{item.name} promises outputs that are {promise}; output {index} moved by {distance:.3g} "
        "of its range",
        cure="this is a bug in the pass, or the model is not finite on these inputs",
    )

"""integer_outlook: what of a float graph would compute in int8, found by lowering it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from planish.ir.coverage import Coverage, int8_coverage
from planish.ir.graph import Graph
from planish.ir.level import Level
from planish.passes.context import Context
from planish.passes.fold_batch_norm import FoldBatchNorm
from planish.passes.insert_qdq import InsertQDQ
from planish.passes.lower_to_integer import LowerToInteger
from planish.passes.quantization.observers import Histogram
from planish.passes.quantization.quantization_placement import Placement

from .pipeline import Pipeline


@dataclass(frozen=True)
class _UncalibratedQDQ(InsertQDQ):
    """insert-qdq where every value is taken to lie between -1 and 1: no data is needed."""

    needs_data: ClassVar[bool] = False

    def _observe(
        self, graph: Graph, placement: Placement, context: Context
    ) -> dict[fx.Node, Histogram]:
        del graph, context
        histograms = {placement.representative(node): Histogram() for node in placement.points}
        for histogram in histograms.values():
            histogram.observe(torch.tensor([-1.0, 1.0]))
        return histograms


def integer_outlook(graph: Graph, target: str | None = None) -> Coverage:
    """Return the int8 coverage that compiling a graph for a target would have.

    The graph goes through the passes that quantize and lower it, with made-up ranges: which
    operators become integer ones depends on the graph alone. A graph that is lowered already is
    counted as it is.

    Args:
        graph: At the canonical level or above; it is left alone.
        target: Target name; None judges without one.
    """
    if graph.level is Level.CAPTURED:
        return int8_coverage(graph)
    steps = {
        Level.CANONICAL: [FoldBatchNorm(), _UncalibratedQDQ(), LowerToInteger()],
        Level.QUANTIZED: [LowerToInteger()],
        Level.INTEGER: [],
    }[graph.level]
    lowered = Pipeline(steps).run(graph, target=target).graph if steps else graph
    return int8_coverage(lowered)

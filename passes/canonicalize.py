"""canonicalize: exported ATen becomes the small closed set of the operator table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from planish.ir.graph import Graph
from planish.ir.level import Level, Numerics
from planish.ir.ops import row

from .base import Pass, PassResult
from .canonical_rules import replace_in_place, rewrite
from .context import Context


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Spell every operator one way; drop in-place operators, aliases, guards and dead nodes.

    Rewrite:
        %relu_ = relu_(%conv)                        ->  %relu = relu(%conv)
        %hardtanh = hardtanh(%x, 0.0, 6.0)           ->  %clamp = clamp(%x, 0.0, 6.0)
        %view = view(%x, [%sym_size, 64])            ->  %flatten = flatten(%x, 1, -1)
        %mean = mean.dim(%x, [2, 3])                 ->  adaptive_avg_pool2d(%x, [1, 1]), flatten
        %chunk = chunk(%x, 2, 1); getitem(%chunk, 0) ->  %slice = slice.Tensor(%x, 1, 0, 8)

    Checks:
        An operator that has no row in the operator table is an OperatorError that names it.
        An in-place operator on a view of another value is an OperatorError.
        So is an operator that needs a fixed batch size in a graph whose batch is open.
        A model that another tool quantized keeps its fake-quantize nodes: its graph is quantized.

    Source:
        planish's own; the closed set is `planish.ir.ops`.
    """

    name: ClassVar[str] = "canonicalize"
    requires: ClassVar[tuple[Level, ...]] = (Level.CAPTURED, Level.CANONICAL)
    ensures: ClassVar[Level | None] = Level.CANONICAL
    preserves: ClassVar[Numerics] = Numerics.CLOSE

    def run(self, graph: Graph, context: Context) -> PassResult:
        """Rewrite until nothing changes; each rule looks at one node."""
        del context
        before = graph.fingerprint()
        graph.infer()
        replace_in_place(graph)
        rewrite(graph)
        graph.prune_dead().infer(keep_open=True)
        for node in graph.calls:
            row(node)  # an operator without a row is an error here, with the user's line
        quantized = any(row(node).name == "fake_quantize" for node in graph.calls)
        graph.level = Level.QUANTIZED if quantized else Level.CANONICAL
        return PassResult(graph, graph.fingerprint() != before)

"""RemoveTeacherHooks: the plain graph again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from planish.ir.errors import PassError
from planish.ir.graph import Graph
from planish.ir.level import Level, Numerics

from .base import Pass, PassResult
from .context import Context
from .distillation.teacher_hooks import HOOKS, without_hooks


@dataclass(frozen=True)
class RemoveTeacherHooks(Pass):
    """Take teacher, taps and adapters out of the graph.

    Rewrite::

        %y = student(%x)                              %y = student(%x)
        %f = conv2d(%s, @adapter.s.weight, ...)  ->   return %y
        %t_y = teacher(%x)
        return %y, %t_y, %f, %t_s

    The text is the one before `InsertTeacherHooks`; the student keeps what it learned.

    Checks: there are hooks to remove.

    Source: Romero et al., "FitNets" (ICLR 2015), section 2.2: the regressor serves training only.
    """

    name: ClassVar[str] = "remove-teacher-hooks"
    requires: ClassVar[tuple[Level, ...]] = (Level.CANONICAL, Level.QUANTIZED)
    preserves: ClassVar[Numerics] = Numerics.EXACT
    needs: ClassVar[frozenset[str]] = frozenset({HOOKS})
    removes: ClassVar[frozenset[str]] = frozenset({HOOKS})

    def run(self, graph: Graph, context: Context) -> PassResult:  # noqa: ARG002
        """Remove the hooks; see the class."""
        if HOOKS not in graph.annotations:
            raise PassError(
                "the graph has no teacher hooks",
                where=self.name,
                cure="insert-teacher-hooks makes them",
            )
        without_hooks(graph)
        return PassResult(graph.infer(), True)

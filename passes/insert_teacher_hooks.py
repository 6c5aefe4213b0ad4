"""InsertTeacherHooks: the frozen teacher and the pairs to be matched, in the student's graph."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, ClassVar

from planish.ir.errors import PassError
from planish.ir.graph import Graph
from planish.ir.history import Refused
from planish.ir.level import Level, Numerics

from .base import Pass, PassResult, check_option
from .context import Context
from .distillation.teacher_hooks import HOOKS, Hooks
from .distillation.teacher_taps import Tap, named_taps, stage_taps

_LEVELS = (Level.CANONICAL, Level.QUANTIZED)


@dataclass(frozen=True)
class InsertTeacherHooks(Pass):
    """Put a frozen teacher beside the student and return what `Train` shall match.

    Options: `teacher` is a graph, the path of one that `Graph.save` wrote, or "input": the graph as
    it entered the pipeline. `soft_labels`, `hard_labels`, `features` and `attention` are the
    weights of the losses (0: none), `temperature` softens the soft labels. `taps` names the places
    for features and attention: origins or module paths, "student=teacher" where names differ; by
    default the last operator of each spatial size that the two have in common.

    Rewrite::

        %y = student(%x)          %y = student(%x)
        return %y            ->   %f = conv2d(%s, @adapter.s.weight, @adapter.s.bias, ...)
                                  %t_y = teacher(%x)          # holds %t_s, the partner of %s
                                  return %y, %t_y, %f, %t_s

    The added outputs are flat ones behind the model's own; calling the graph still returns what
    the model returned. The teacher's tensors are buffers, its nodes are frozen: `graph.train()`
    leaves its batch norm and dropout alone. Where widths differ, features go through an adapter,
    a trainable 1x1 convolution (a linear layer where the activation is no image).
    `annotations["teacher-hooks"]` says which outputs belong together::

        {"outputs": 1, "losses": [
            {"kind": "soft-labels", "weight": 0.9, "student": 0, "teacher": 1, "temperature": 4.0},
            {"kind": "hard-labels", "weight": 0.1},
            {"kind": "features", "weight": 1.0, "student": 2, "teacher": 3, "tap": "layers.2"}]}

    Checks: the teacher is canonical and takes the student's inputs; soft labels need outputs of
    one shape; a tap needs sizes that agree but for the width, attention four axes; hooks aren't
    there yet. A stage that has no counterpart in the teacher is refused and stays without a tap.

    Source: Hinton et al. 2015; Romero et al. 2015; Zagoruyko & Komodakis 2017 (see
    `distillation_losses`).
    """

    name: ClassVar[str] = "insert-teacher-hooks"
    requires: ClassVar[tuple[Level, ...]] = _LEVELS
    preserves: ClassVar[Numerics] = Numerics.EXACT
    adds: ClassVar[frozenset[str]] = frozenset({HOOKS})

    teacher: Graph | str | os.PathLike[str] = "input"
    soft_labels: float = 0.9
    temperature: float = 4.0
    hard_labels: float = 0.1
    features: float = 0.0
    attention: float = 0.0
    taps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the options."""
        weights = (self.soft_labels, self.hard_labels, self.features, self.attention)
        check_option(
            all(math.isfinite(weight) and weight >= 0 for weight in weights) and any(weights),
            f"the weights of the losses are {weights}, must be 0 or more and not all 0",
            self.name,
        )
        check_option(
            math.isfinite(self.temperature) and self.temperature > 0,
            f"the temperature is {self.temperature}, must be above 0",
            self.name,
        )
        check_option(
            not self.taps or bool(self.features or self.attention),
            "taps are given, but neither features nor attention has a weight",
            self.name,
            cure="give features=... or attention=...",
        )
        check_option(
            not str(self.teacher).startswith("graph:"),
            "the teacher was a graph in memory, which a recipe can't hold",
            self.name,
            cure='save it with Graph.save and name the file, or use teacher = "input"',
        )

    def options(self) -> dict[str, Any]:
        """Return the options as plain values; a teacher in memory by its digest."""
        values = super().options()
        if isinstance(self.teacher, Graph):
            values["teacher"] = f"graph:{self.teacher.fingerprint()[:12]}"
        elif "teacher" in values:
            values["teacher"] = os.fspath(self.teacher)
        return values

    def run(self, graph: Graph, context: Context) -> PassResult:
        """Insert teacher, taps and adapters; see the class."""
        if HOOKS in graph.annotations:
            raise PassError(
                "the graph already has teacher hooks",
                where=self.name,
                cure="run remove-teacher-hooks first",
            )
        teacher = self._load(context)
        _check_inputs(graph, teacher)
        if self.soft_labels:
            _check_logits(graph, teacher)
        taps, refused = self._taps(graph, teacher)
        hooks = Hooks(graph, teacher, context.seed)
        losses = self._label_losses(hooks)
        for tap in taps:
            losses += self._tap_losses(hooks, tap)
        graph.annotations[HOOKS] = {"outputs": hooks.own, "losses": losses}
        hooks.finish()
        notes = {"taps": [tap.name for tap in taps], "adapters": hooks.adapters}
        return PassResult(graph, True, tuple(refused), notes)

    def _load(self, context: Context) -> Graph:
        if isinstance(self.teacher, Graph):
            teacher = self.teacher
        elif self.teacher != "input":
            teacher = Graph.load(self.teacher)
        elif context.original is not None:
            teacher = context.original
        else:
            raise PassError(
                'the teacher is "input", but no pipeline said which graph came in',
                where=self.name,
                cure="give teacher=graph, or run the pass in a Pipeline",
            )
        if teacher.level != Level.CANONICAL or HOOKS in teacher.annotations:
            kind = "has teacher hooks of its own" if HOOKS in teacher.annotations else "is"
            raise PassError(
                f"the teacher {kind} on the {teacher.level.label} level",
                where=self.name,
                cure="use the plain canonical graph that planish.capture gives",
            )
        return teacher

    def _taps(self, graph: Graph, teacher: Graph) -> tuple[list[Tap], list[Refused]]:
        if not (self.features or self.attention):
            return [], []
        if not self.taps:
            taps, refused = stage_taps(graph, teacher)
        else:
            taps, refused = named_taps(graph, teacher, self.taps), []
        if not taps:
            raise PassError(
                "no activation of the student has a counterpart in the teacher",
                where=self.name,
                cure='name them: taps = ["student name=teacher name"]',
            )
        for tap in taps:
            if self.attention and len(graph.shape(tap.student)) != 4:
                raise PassError(
                    f"attention needs [N, C, H, W], tap {tap.name!r} has another shape",
                    where=self.name,
                    cure="tap a convolution, or use features",
                )
        return taps, refused

    def _label_losses(self, hooks: Hooks) -> list[dict[str, Any]]:
        losses: list[dict[str, Any]] = []
        if self.soft_labels:
            soft = {"kind": "soft-labels", "weight": self.soft_labels, **hooks.logits()}
            losses.append({**soft, "temperature": self.temperature})
        if self.hard_labels:
            losses.append({"kind": "hard-labels", "weight": self.hard_labels})
        return losses

    def _tap_losses(self, hooks: Hooks, tap: Tap) -> list[dict[str, Any]]:
        losses: list[dict[str, Any]] = []
        for kind, weight in (("features", self.features), ("attention", self.attention)):
            if weight:
                pair = hooks.pair(tap, adapt=kind == "features")
                losses.append({"kind": kind, "weight": weight, **pair, "tap": tap.name})
        return losses


def _check_inputs(graph: Graph, teacher: Graph) -> None:
    fits = len(graph.inputs) == len(teacher.inputs) and all(
        own.dtype == other.dtype
        and len(own.shape) == len(other.shape)
        and all(o in (None, s) for s, o in zip(own.shape, other.shape, strict=True))
        for own, other in zip(graph.inputs, teacher.inputs, strict=True)
    )
    if not fits:
        raise PassError(
            f"the teacher takes ({', '.join(map(str, teacher.inputs))}), "
            f"the student ({', '.join(map(str, graph.inputs))})",
            where=InsertTeacherHooks.name,
            cure="capture both with the same example inputs",
        )


def _check_logits(graph: Graph, teacher: Graph) -> None:
    own, other = graph.shape(graph.outputs[0]), teacher.shape(teacher.outputs[0])
    if len(own) < 2 or own[1:] != other[1:]:
        raise PassError(
            f"soft labels need outputs [N, classes] of one shape; the student's first output is "
            f"{list(own)}, the teacher's {list(other)}",
            where=InsertTeacherHooks.name,
            cure="set soft_labels=0 and use features or attention",
        )

"""Which activation of a student belongs to which of its teacher, paired by origin.

An origin's name is the user's module path. Rewrites keep it, so that a pruned, folded or quantized
student still has the names of the network that it came from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from planish.ir.errors import OptionError, PassError, nearest
from planish.ir.graph import Graph
from planish.ir.history import Refused
from planish.ir.ops import arguments, has_row, row


@dataclass(frozen=True)
class Tap:
    """A pair of activations to be matched.

    Attributes:
        name: The student's name of the place: "layers.2".
        student: Node of the student's graph.
        teacher: Node of the teacher's graph.
    """

    name: str
    student: fx.Node
    teacher: fx.Node


def named_taps(student: Graph, teacher: Graph, names: tuple[str, ...]) -> list[Tap]:
    """Pair the activations that the user names.

    Args:
        student: The graph to train.
        teacher: The graph to learn from.
        names: Origin names, or module paths, which mean the last operator of the module. Where the
            teacher calls the place by another name: "student name=teacher name".

    Raises:
        OptionError: A name that one of them doesn't have; gives the nearest.
        PassError: Two activations whose sizes differ in more than the width.
    """
    taps: list[Tap] = []
    for name in names:
        own, _, other = name.partition("=")
        tap = Tap(own, _find(student, own, "student"), _find(teacher, other or own, "teacher"))
        if not same_places(student, tap.student, teacher, tap.teacher):
            raise PassError(
                f"the student's {own!r} is {list(student.shape(tap.student))}, "
                f"the teacher's {list(teacher.shape(tap.teacher))}",
                where="tap of insert-teacher-hooks",
                cure="tap where all sizes but the width agree",
            )
        taps.append(tap)
    return taps


def stage_taps(student: Graph, teacher: Graph) -> tuple[list[Tap], list[Refused]]:
    """Pair the last activation of each stage: of each spatial size above 1x1.

    The last one with a counterpart counts: the same origin, the same operator and the same spatial
    size in the teacher. Stages without any are returned as refused.
    """
    known = {_key(teacher, node): node for node in _activations(teacher)}
    stages: dict[tuple[int | None, ...], list[fx.Node]] = {}
    for node in _activations(student):
        if len(student.shape(node)) == 4 and student.shape(node)[2:] != (1, 1):
            stages.setdefault(student.shape(node)[2:], []).append(node)
    taps: list[Tap] = []
    refused: list[Refused] = []
    for size, nodes in stages.items():
        paired = [node for node in nodes if _key(student, node) in known]
        if not paired:
            reason = f"no operator of size {list(size)} has a counterpart in the teacher"
            refused.append(Refused(student.origin(nodes[-1]).name, reason))
            continue
        last = paired[-1]
        partner = known[_key(student, last)]
        taps.append(Tap(student.origin(last).name, _as_quantized(last), partner))
    return taps, refused


def width_axis(graph: Graph, node: fx.Node) -> int:
    """Return the axis of an activation's channels: 1 for images, else the last."""
    return 1 if len(graph.shape(node)) == 4 else -1


def same_places(student: Graph, own: fx.Node, teacher: Graph, other: fx.Node) -> bool:
    """Whether two activations agree in all sizes but the batch and the width."""
    if len(student.shape(own)) != len(teacher.shape(other)):
        return False
    return _places(student, own) == _places(teacher, other)


def _places(graph: Graph, node: fx.Node) -> list[int | None]:
    sizes = list(graph.shape(node))
    del sizes[width_axis(graph, node)]
    return sizes[1:]


def _key(graph: Graph, node: fx.Node) -> tuple[str, str, tuple[int | None, ...]]:
    return graph.origin(node).name, row(node).name, graph.shape(node)[2:]


def _activations(graph: Graph) -> list[fx.Node]:
    """Return the operators that make float activations; fake-quantize makes none of its own."""
    return [
        node
        for node in graph.calls
        if has_row(node.target)
        and not _is_fake_quantize(node)
        and isinstance(node.meta["val"], torch.Tensor)
        and node.meta["val"].is_floating_point()
        and node.meta["val"].dim() >= 2
    ]


def _find(graph: Graph, name: str, whose: str) -> fx.Node:
    """Return the last activation of the operator or module `name`."""
    nodes = _activations(graph)
    names = {node: graph.origin(node).name for node in nodes}
    found = [node for node in nodes if names[node] == name or names[node].startswith(f"{name}.")]
    if not found:
        raise OptionError(
            f"the {whose} has no operator {name!r} to tap",
            where="insert-teacher-hooks",
            cure=nearest(name, set(names.values())),
        )
    return _as_quantized(found[-1])


def _is_fake_quantize(node: fx.Node) -> bool:
    return has_row(node.target) and row(node).name == "fake_quantize"


def _as_quantized(node: fx.Node) -> fx.Node:
    """Follow an activation to its fake-quantize, if it has one: what is deployed is what learns."""
    for user in node.users:
        if _is_fake_quantize(user) and arguments(user)["x"] is node:
            return user
    return node

"""Which nodes of an integer graph become one kernel: read from the graph, nothing is changed.

- `clamp_i8` after the only use of an operator with clamp bounds: the bounds become narrower.
- `add_i8` of a convolution's only use with a tensor of the same shape: the addition joins the
  convolution's epilogue. The formulas stay as they are, value for value; both have to say the same
  zero point of the convolution's result, which is then never added and taken away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx

from planish.ir import Graph
from planish.ir.ops import arguments

_planish = torch.ops.planish
_BOUNDED = (
    _planish.conv2d_i8.default,
    _planish.linear_i8.default,
    _planish.add_i8.default,
    _planish.mul_i8.default,
    _planish.matmul_i8.default,
    _planish.softmax_i8.default,
    _planish.layer_norm_i8.default,
    _planish.mean_i8.default,
    _planish.requantize_i8.default,
    _planish.conv_transpose2d_i8.default,
    _planish.resize_i8.default,
    _planish.avg_pool2d_i8.default,
    _planish.adaptive_avg_pool2d_i8.default,
)


@dataclass
class Fusion:
    """What joins what.

    Attributes:
        clamps: An operator to the clamp_i8 nodes that follow it.
        residuals: An add_i8 node to the convolution that it joins.
        joined: Every node that some other node's kernel computes.
    """

    clamps: dict[torch.fx.Node, list[torch.fx.Node]] = field(default_factory=dict)
    residuals: dict[torch.fx.Node, torch.fx.Node] = field(default_factory=dict)
    joined: set[torch.fx.Node] = field(default_factory=set)

    def last(self, node: torch.fx.Node) -> torch.fx.Node:
        """Return the node whose value the kernel of `node` leaves."""
        return self.clamps[node][-1] if self.clamps.get(node) else node

    def bounds(self, node: torch.fx.Node) -> tuple[int, int]:
        """Return `lo` and `hi` of a node, narrowed by the clamps that follow it."""
        values = arguments(node)
        lo, hi = int(values["lo"]), int(values["hi"])
        for clamp in self.clamps.get(node, []):
            inner = arguments(clamp)
            low, high = int(inner["lo"]), int(inner["hi"])
            lo, hi = min(max(lo, low), high), min(max(hi, low), high)
        return lo, hi


def _only_user(node: torch.fx.Node) -> torch.fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _joins(result: torch.fx.Node, convolution: torch.fx.Node, add: torch.fx.Node) -> bool:
    """Whether a convolution's result has no other use than an addition that takes it as it is."""
    values = arguments(add)
    side = "a" if values["a"] is result else "b"
    said = int(arguments(convolution)["y_zero_point"])
    return _only_user(result) is add and int(values[f"{side}_zero_point"]) == said


def _following_clamps(node: torch.fx.Node) -> list[torch.fx.Node]:
    found: list[torch.fx.Node] = []
    user = _only_user(node)
    while user is not None and user.target is _planish.clamp_i8.default:
        found.append(user)
        user = _only_user(user)
    return found


def find_fusions(graph: Graph) -> Fusion:
    """Return the fusions of an integer graph."""
    fusion = Fusion()
    order = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.calls:
        if node.target in _BOUNDED:
            clamps = _following_clamps(node)
            fusion.clamps[node] = clamps
            fusion.joined.update(clamps)
    ends: dict[Any, torch.fx.Node] = {
        fusion.last(node): node
        for node in fusion.clamps
        if node.target is _planish.conv2d_i8.default
    }
    for node in graph.calls:
        if node.target is not _planish.add_i8.default:
            continue
        sides = [arguments(node)["a"], arguments(node)["b"]]
        if len({tuple(side.meta["val"].shape) for side in sides}) != 1 or sides[0] is sides[1]:
            continue
        candidates = [s for s in sides if s in ends and _joins(s, ends[s], node)]
        if candidates:
            chosen = ends[max(candidates, key=lambda side: order[ends[side]])]
            fusion.residuals[node] = chosen
            fusion.joined.add(chosen)
    return fusion

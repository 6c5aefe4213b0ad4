"""The rules of canonicalize: each takes a graph and a node, and says whether it rewrote it."""

from collections.abc import Callable

from torch import fx

from planish.ir.graph import Graph

from .in_place import replace_in_place
from .shapes import SHAPE_RULES
from .spelling import SPELLING_RULES

Rule = Callable[[Graph, fx.Node], bool]

RULES: tuple[Rule, ...] = (*SPELLING_RULES, *SHAPE_RULES)

__all__ = ["RULES", "Rule", "replace_in_place"]

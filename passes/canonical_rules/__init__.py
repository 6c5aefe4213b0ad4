"""The rules of canonicalize, one file for each kind of operator, and how they are applied."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import fx

from planish.ir.errors import PassError
from planish.ir.graph import Graph

from .arithmetic import ARITHMETIC_RULES
from .attention import ATTENTION_RULES
from .constants import fold_constants
from .convolution import CONVOLUTION_RULES
from .creation import CREATION_RULES
from .decompose import DECOMPOSE_RULES
from .functions import FUNCTION_RULES
from .in_place import replace_in_place
from .indexing import INDEXING_RULES
from .logic import LOGIC_RULES
from .movement import MOVEMENT_RULES
from .normalization import NORMALIZATION_RULES
from .one_dimensional import ONE_DIMENSIONAL_RULES
from .patterns import PATTERN_RULES
from .pooling import POOLING_RULES
from .products import PRODUCT_RULES
from .quantized import QUANTIZED_RULES
from .recurrent import RECURRENT_RULES
from .rewriting import TARGETS, Rule
from .shapes import SHAPE_RULES
from .sorting import SORTING_RULES
from .spelling import SPELLING_RULES

RULES: tuple[Rule, ...] = (
    *SPELLING_RULES,
    *QUANTIZED_RULES,
    *CREATION_RULES,
    *LOGIC_RULES,
    *PATTERN_RULES,
    *RECURRENT_RULES,
    *ATTENTION_RULES,
    *NORMALIZATION_RULES,
    *ONE_DIMENSIONAL_RULES,
    *CONVOLUTION_RULES,
    *POOLING_RULES,
    *ARITHMETIC_RULES,
    *FUNCTION_RULES,
    *PRODUCT_RULES,
    *SHAPE_RULES,
    *MOVEMENT_RULES,
    *INDEXING_RULES,
    *SORTING_RULES,
    *DECOMPOSE_RULES,
)

# Each sweep must bring the graph closer to the canonical form; no model needs a tenth of these.
_MOST_SWEEPS = 200


def rewrite(graph: Graph) -> None:
    """Apply the rules, node by node, until none of them finds anything.

    Raises:
        PassError: Two rules undo each other (a mistake in a rule).
    """
    known: dict[Any, list[Rule]] = defaultdict(list)
    everywhere = [rule for rule in RULES if rule not in TARGETS]
    for rule in RULES:
        for target in TARGETS.get(rule, ()):
            known[target].append(rule)
    for _ in range(_MOST_SWEEPS):
        changed = [fold_constants(graph)]
        changed += [_rewrite_node(graph, node, known, everywhere) for node in graph.calls]
        graph.prune_dead()
        if not any(changed):
            return
    raise PassError("the rules of canonicalize don't come to an end", where="canonicalize")


def _rewrite_node(
    graph: Graph, node: fx.Node, known: dict[Any, list[Rule]], everywhere: list[Rule]
) -> bool:
    """Apply to one node every rule that looks at it; return whether any did something."""
    changed = False
    for rule in (*everywhere, *known.get(node.target, ())):
        if node._erased:
            break
        changed |= rule(graph, node)
    return changed


__all__ = ["RULES", "Rule", "replace_in_place", "rewrite"]

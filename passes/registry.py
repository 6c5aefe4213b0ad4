"""The passes by name: one line each. Other distributions add theirs by entry point.

A distribution registers a pass in the entry-point group "planish.passes":

    [project.entry-points."planish.passes"]
    my-pass = "my_package.my_pass:MyPass"
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from planish.ir.errors import OptionError, unknown

from .base import Pass

_PASSES = {
    "canonicalize": "canonicalize:Canonicalize",
    "fold-batch-norm": "fold_batch_norm:FoldBatchNorm",
    "prune-channels": "prune_channels:PruneChannels",
    "insert-teacher-hooks": "insert_teacher_hooks:InsertTeacherHooks",
    "train": "train:Train",
    "remove-teacher-hooks": "remove_teacher_hooks:RemoveTeacherHooks",
    "insert-qdq": "insert_qdq:InsertQDQ",
    "lower-to-integer": "lower_to_integer:LowerToInteger",
}
_GROUP = "planish.passes"


def pass_names() -> list[str]:
    """Return the names of all passes, planish's own first, then those of other distributions."""
    return [*_PASSES, *sorted(_foreign().keys() - _PASSES.keys())]


def pass_class(name: str) -> type[Pass]:
    """Return the pass registered under `name`.

    Raises:
        OptionError: There is none (names the nearest), or another distribution's entry point
            does not lead to a pass.
    """
    if name in _PASSES:
        module, _, attribute = _PASSES[name].partition(":")
        found = getattr(importlib.import_module(f"planish.passes.{module}"), attribute)
        assert issubclass(found, Pass)
        return found
    foreign = _foreign()
    if name not in foreign:
        raise unknown("pass", name, pass_names())
    try:
        loaded = foreign[name].load()
    except (ImportError, AttributeError) as error:
        raise OptionError(
            f"pass {name!r} can't be loaded: {error}", where=f"entry point {foreign[name].value}"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Pass)):
        raise OptionError(
            f"pass {name!r} is not a Pass", where=f"entry point {foreign[name].value}"
        )
    return loaded


def build_pass(name: str, options: dict[str, Any]) -> Pass:
    """Build a pass from its registered name and plain options."""
    return pass_class(name).from_options(options)


def _foreign() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group=_GROUP)}

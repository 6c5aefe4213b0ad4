"""What a pass is: a frozen dataclass whose fields are its options, and one method."""

from __future__ import annotations

import abc
import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from planish.ir.errors import OptionError, unknown
from planish.ir.history import Refused
from planish.ir.level import Level, Numerics

if TYPE_CHECKING:
    from planish.ir.graph import Graph

    from .context import Context


@dataclass(frozen=True)
class PassResult:
    """What a pass did.

    Attributes:
        graph: The rewritten graph; usually the one that the pass was given.
        changed: Whether anything is different; the pipeline checks the claim.
        refused: Nodes left alone, with reasons; ends in the report.
        notes: Numbers to remember, as plain JSON values.
    """

    graph: Graph
    changed: bool
    refused: tuple[Refused, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass(abc.ABC):
    """A rewrite of a graph. Subclasses are frozen dataclasses; their fields are the options.

    A pass edits the graph that it is given (the pipeline hands it a copy of its own), calls
    `graph.infer()` once it is done, and returns the graph in its result.

    Attributes:
        name: The registered name: "fold-batch-norm".
        requires: The levels that a graph may have before the pass.
        ensures: The level after it, or None where it keeps the level.
        preserves: What it promises about the outputs; checked when the pipeline is asked to.
        needs: Annotations ("teacher-hooks") that the graph must carry before the pass.
        adds: Annotations that it leaves.
        removes: Annotations that it takes away.
        tolerates: Annotations that may be there; any other one is an error of order.
        needs_data: Whether it reads `context.data`.
        needs_labels: Whether it reads labels too.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[Level, ...]] = (Level.CANONICAL,)
    ensures: ClassVar[Level | None] = None
    preserves: ClassVar[Numerics] = Numerics.CHANGES
    needs: ClassVar[frozenset[str]] = frozenset()
    adds: ClassVar[frozenset[str]] = frozenset()
    removes: ClassVar[frozenset[str]] = frozenset()
    tolerates: ClassVar[frozenset[str]] = frozenset()
    needs_data: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    @abc.abstractmethod
    def run(self, graph: Graph, context: Context) -> PassResult:
        """Rewrite `graph`; see the subclass for what it does, checks and refuses."""

    def options(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as plain values."""
        values: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value == _default(item) and type(value) is type(_default(item)):
                continue
            values[item.name] = list(value) if isinstance(value, tuple) else value
        return values

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        """Build the pass from plain values; lists become tuples.

        Raises:
            OptionError: An option that the pass doesn't have (with the nearest names), or a bad
                value.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        for name in options:
            if name not in known:
                raise _named(unknown("option", name, known), cls.name)
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise OptionError(f"bad options: {error}", where=cls.name) from error


def _named(error: OptionError, name: str) -> OptionError:
    return OptionError(error.what, where=name, cure=error.cure)


def _default(item: dataclasses.Field[Any]) -> Any:
    if item.default is not dataclasses.MISSING:
        return item.default
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return dataclasses.MISSING


def check_types(made: Pass) -> None:
    """Raise OptionError where an option's value is not of its annotated type.

    Plain types are checked (int, float, bool, str, None, tuples of str, and unions of these);
    an int will do for a float, a bool for no number.
    """
    hints = typing.get_type_hints(type(made))
    for item in dataclasses.fields(made):
        value, hint = getattr(made, item.name), hints[item.name]
        if not _fits(value, hint):
            raise OptionError(f"{item.name}={value!r} is no {_spelled(hint)}", where=made.name)


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(hint))
    if hint == tuple[str, ...]:
        return isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    if hint in (int, float) and isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    if hint in (bool, int, float, str, types.NoneType):
        return isinstance(value, hint)
    return True


def _spelled(hint: Any) -> str:
    names = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = [names.get(part, "list of names") for part in parts if part is not types.NoneType]
    return " or ".join(plain)


def check_option(condition: bool, what: str, pass_name: str, cure: str | None = None) -> None:
    """Raise OptionError unless `condition`; for use in a pass's `__post_init__`."""
    if not condition:
        raise OptionError(what, where=pass_name, cure=cure)

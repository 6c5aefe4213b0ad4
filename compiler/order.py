"""Whether passes can run in the order they are written in; if not, what to move or to add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planish.ir.errors import OptionError, PipelineError
from planish.ir.level import Level
from planish.passes.base import Pass


@dataclass(frozen=True)
class State:
    """What is known of the graph at one point of a pipeline.

    Attributes:
        levels: The levels that it may have.
        annotations: Those that it carries.
        absent: Those that it surely doesn't carry.
        known: Whether `annotations` holds all of them; False while the starting graph is unknown.
    """

    levels: frozenset[Level] = frozenset(Level)
    annotations: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    known: bool = False

    def after(self, item: Pass) -> State:
        """Return the state that a pass leaves."""
        levels = self.levels & frozenset(item.requires)
        return State(
            levels if item.ensures is None else frozenset({item.ensures}),
            (self.annotations | item.needs | item.adds) - item.removes,
            (self.absent | item.removes) - item.adds,
            self.known,
        )


def check_order(passes: Sequence[Pass], start: State | None = None) -> None:
    """Raise PipelineError, with the cure, if some pass can't run where it stands.

    Args:
        passes: In the order of running.
        start: What is known of the graph at the start; nothing by default.
    """
    state = start or State()
    states: list[State] = []
    for index, item in enumerate(passes):
        states.append(state)
        later = frozenset[str]().union(*(other.adds for other in passes[index + 1 :]))
        reason = _obstacle(state, item, later)
        if reason is not None:
            raise _error(passes, index, states, reason)
        state = state.after(item)


def _obstacle(state: State, item: Pass, later: frozenset[str] = frozenset()) -> str | None:
    """Say why a pass can't run in a state, or return None.

    `later` are the annotations that following passes add: nobody who writes those into a pipeline
    means that the starting graph brings them.
    """
    if not state.levels & frozenset(item.requires):
        needed = " or ".join(level.label for level in item.requires)
        found = " or ".join(level.label for level in sorted(state.levels))
        return f"it needs {_article(needed)} graph and would get {_article(found)} one"
    for name in sorted(item.needs - state.annotations):
        if state.known or name in state.absent or name in later:
            return f"it needs {name}, which the graph doesn't carry there"
    foreign = state.annotations - item.needs - item.removes - item.tolerates
    if foreign:
        return f"it can't work on a graph that carries {', '.join(sorted(foreign))}"
    return None


def _error(passes: Sequence[Pass], index: int, states: list[State], reason: str) -> PipelineError:
    item = passes[index]
    where = f"position {index + 1} of {len(passes)}: {reason}"
    for earlier in reversed(range(index)):
        if _runs(states[earlier], [item, *passes[earlier:index]]):
            return _must_stand_before(item, passes[earlier], earlier, where)
    state = states[index]
    for later in range(index + 1, len(passes)):
        if _obstacle(state, passes[later]) is not None:
            break
        state = state.after(passes[later])
        if _obstacle(state, item) is None:
            what = f"{item.name} must stand after {passes[later].name}"
            return PipelineError(what, where=where, cure=f"move it to position {later + 1}")
    missing = _missing_pass(states[index], item)
    if missing is not None:
        return PipelineError(f"{item.name} can't run", where=where, cure=f"put {missing} before it")
    for earlier in reversed(range(index)):
        if _obstacle(states[earlier], item) is None:
            return _must_stand_before(item, passes[earlier], earlier, where)
    needed = " or ".join(level.label for level in item.requires)
    return PipelineError(
        f"{item.name} can't run", where=where, cure=f"start from {_article(needed)} graph"
    )


def _runs(state: State, passes: Sequence[Pass]) -> bool:
    """Whether passes can run one after the other from a state."""
    for item in passes:
        if _obstacle(state, item) is not None:
            return False
        state = state.after(item)
    return True


def _must_stand_before(item: Pass, other: Pass, index: int, where: str) -> PipelineError:
    what = f"{item.name} must stand before {other.name}"
    return PipelineError(what, where=where, cure=f"move it to position {index + 1}")


def _missing_pass(state: State, item: Pass) -> str | None:
    """Name a registered pass that would make `item` possible in `state`, if there is one."""
    from planish.passes.registry import pass_class, pass_names

    for name in pass_names():
        try:
            candidate = pass_class(name)
        except OptionError:  # another distribution's, and broken: no advice worth giving
            continue
        # The order depends on class attributes alone, so options don't matter here.
        bare = object.__new__(candidate)
        if _runs(state, [bare, item]):
            return name
    return None


def _article(label: str) -> str:
    return f"an {label}" if label[0] in "aeiou" else f"a {label}"

"""The errors that planish raises for a user's mistake: what, where, and the cure, on one line.

Only the standard library is imported here, so that a compiled artifact can raise them
in an environment without torch.
"""

import difflib
from collections.abc import Iterable


class PlanishError(Exception):
    """An error with a cause that the user can act on.

    Args:
        what: What is wrong, as one clause.
        where: File and line, node, operator or option that it concerns.
        cure: What to do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, cure: str | None = None) -> None:
        self.what = what
        self.where = where
        self.cure = cure
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"at {self.where}")
        if self.cure:
            parts.append(self.cure)
        return "; ".join(parts)


class ModelError(PlanishError):
    """A model that can't be read or captured."""


class InputTypeError(ModelError):
    """Example inputs of real numbers where the model wants integers."""


class OperatorError(PlanishError):
    """An operator without a row in the operator table, or one used outside its row's limits."""


class FallbackError(OperatorError):
    """An operator that would compute in float where that is not allowed."""


class VerifyError(PlanishError):
    """A graph that breaks an invariant of its level."""

    def __str__(self) -> str:
        return self.what


class PassError(PlanishError):
    """A pass that can't do what its options ask for on this graph."""


class PipelineError(PlanishError):
    """A pipeline in an impossible order, or a pass that broke its contract."""


class OptionError(PlanishError):
    """An unknown name or a bad value for an option."""


class DataError(PlanishError):
    """Inputs, labels or calibration data that don't fit."""


class ArtifactError(PlanishError):
    """A compiled artifact that can't be read, or that was made for another machine."""


class TargetError(PlanishError):
    """A target that this machine can't build for or run."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return a cure that names the choices nearest to `name`, or all of them if none is near."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(match) for match in close) + "?"
    return "choose one of " + ", ".join(known)


def unknown(kind: str, name: str, choices: Iterable[str]) -> OptionError:
    """Return the error for a `name` that is none of the `choices` of this `kind`."""
    return OptionError(f"unknown {kind} {name!r}", cure=nearest(name, choices))


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

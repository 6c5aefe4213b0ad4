"""An error is one line: what, where, the cure."""

from planish.ir import OptionError, PlanishError, nearest, unknown


def test_one_line() -> None:
    error = PlanishError("it broke", where="model.py:3", cure="mend it")
    assert str(error) == "it broke; at model.py:3; mend it"
    assert str(PlanishError("it broke")) == "it broke"


def test_the_nearest_names_are_offered() -> None:
    error = unknown("pass", "fold-batchnorm", ["fold-batch-norm", "train"])
    assert isinstance(error, OptionError)
    assert str(error) == "unknown pass 'fold-batchnorm'; did you mean 'fold-batch-norm'?"
    assert nearest("zzz", ["b", "a"]) == "choose one of a, b"

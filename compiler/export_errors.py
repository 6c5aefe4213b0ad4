"""What torch.export says when it can't capture a model, in planish's words."""

from __future__ import annotations

import contextlib
import logging
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from planish.ir.errors import InputTypeError, ModelError

from .exported import user_frame

# How torch's operators ask for indices in place of real numbers.
_WANTS_INTEGERS = re.compile(
    r"scalar types: Long, Int\b|used as indices must be long|only applicable to index tensor"
    r"|Expected dtype int(?:32 or int)?64 for index",
    re.IGNORECASE,
)


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """Keep torch's log off the screen: the error that is raised says what there is to say."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def export_error(
    error: Exception, model: torch.nn.Module, examples: tuple[torch.Tensor, ...]
) -> ModelError:
    """Return the error for what torch.export raised.

    Args:
        error: What it raised.
        model: Which model it was to capture.
        examples: The inputs that it was given.
    """
    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    what = f"torch.export can't capture the model: {type(error).__name__}: {first}"
    where = _user_line(error, model)
    floats = any(example.is_floating_point() for example in examples)
    if floats and _WANTS_INTEGERS.search(text):
        cure = "give integer example inputs there, such as torch.zeros(1, 16, dtype=torch.int64)"
        return InputTypeError(what, where=where, cure=cure)
    if type(error) in (RuntimeError, IndexError):  # an operator's own: sizes that don't fit
        cure = "give example inputs of the shapes and dtypes that the model takes"
    else:
        cure = "rewrite that line without data-dependent Python, or exclude it from the model"
    return ModelError(what, where=where, cure=cure)


def _user_line(error: BaseException, model: torch.nn.Module) -> str:
    """Return "file:line" of the deepest frame in the user's code that led to the error."""
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    own = [f for f in frames if _is_user_file(f[0])]
    if own:
        return f"{own[-1][0]}:{own[-1][1]}"
    found = user_frame(str(error))
    return f"{found[0]}:{found[1]}" if found else f"forward of {type(model).__name__}"


def _is_user_file(name: str) -> bool:
    standard, here = sysconfig.get_path("stdlib"), str(Path(__file__).parent)
    foreign = name.startswith((here, standard, "<"))
    return not foreign and "site-packages" not in name and "/torch/" not in name

"""Models named on the command line: a saved graph, .pt2, .onnx, or a reference into Python."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planish.ir.errors import InputTypeError, ModelError, OptionError

if TYPE_CHECKING:
    import torch

    from planish.ir.graph import Graph

MODEL_HELP = (
    "A saved graph, a .pt2 or .onnx file, or Python: 'package.module:factory' or 'file.py:factory' "
    "(an nn.Module, or a function that returns one)."
)
SHAPE_HELP = (
    "Shape of an input, such as 1x3x224x224 or 1x16:int64; repeatable, in the inputs' order. "
    "For Python models, and ONNX models with open sizes."
)

_INTEGERS = (":int64", ":int32")


def load_model(reference: str, shapes: Sequence[str] = (), *, canonicalize: bool = True) -> Graph:
    """Return the graph of the model that a command line names.

    Args:
        reference: See `MODEL_HELP`.
        shapes: One an input, as `SHAPE_HELP` says; for Python and ONNX models.
        canonicalize: As in `planish.capture`.

    Raises:
        ModelError: No such model, or one that can't be captured.
        OptionError: A shape that can't be read.
    """
    path = Path(reference)
    examples = tuple(_example(shape) for shape in shapes)
    from torch import nn

    import planish

    _silence_torch()
    if path.exists() or ":" not in reference:
        _check_file(path)
        if examples and path.suffix != ".onnx":
            raise OptionError(
                "input shapes are for Python and ONNX models; this file has its own",
                where=reference,
            )
        return planish.capture(path, examples or None, canonicalize=canonicalize)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
        model, own = _from_python(reference)
    if isinstance(model, nn.Module) and not examples and own is None:
        raise ModelError(
            "the shapes of the model's inputs are not known",
            where=reference,
            cure="give --input-shape, such as 1x3x224x224, once an input",
        )
    with contextlib.redirect_stdout(sys.stderr), contextlib.redirect_stderr(io.StringIO()):
        # torch.export prints graphs to stderr before it raises.
        try:
            return planish.capture(model, examples or own, canonicalize=canonicalize)
        except InputTypeError as error:
            raise _with_flag(error, shapes) from error


def _with_flag(error: InputTypeError, shapes: Sequence[str]) -> InputTypeError:
    """Return an error whose cure is an option, if options gave the inputs."""
    floats = [shape.partition(":")[0] for shape in shapes if not shape.endswith(_INTEGERS)]
    if not floats:
        return error
    cure = f"give integers there: --input-shape {floats[0]}:int64"
    return InputTypeError(error.what, where=error.where, cure=cure)


def is_artifact(path: Path) -> bool:
    """Whether a file is a zip with an artifact's manifest; damaged ones count by their end."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "manifest.json" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _check_file(path: Path) -> None:
    if not path.exists():
        raise ModelError(
            "no such model", where=str(path), cure="give a file, or Python as module:factory"
        )
    if path.suffix == ".py":
        raise ModelError(
            "a Python file needs the name of the model in it",
            where=str(path),
            cure=f"write {path}:factory",
        )
    if is_artifact(path):
        raise ModelError(
            "this is a compiled artifact, no model",
            where=str(path),
            cure="planish run and planish bench take it",
        )


def _from_python(reference: str) -> tuple[Any, Any]:
    """Return a model and its own example inputs (or None)."""
    from torch import nn
    from torch.export import ExportedProgram

    place, _, name = reference.rpartition(":")
    found = _lookup(_import(place, reference), name, reference)
    if callable(found) and not isinstance(found, nn.Module):
        try:
            found = found()
        except Exception as error:  # the user's own code: it may raise anything
            first = (str(error).strip().splitlines() or [""])[0]
            raise ModelError(
                f"{name}() failed: {type(error).__name__}: {first}", where=_frame(error, reference)
            ) from error
    model, examples = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if isinstance(model, nn.Module) and examples is None:
        examples = getattr(model, "example_inputs", None)
    if isinstance(model, nn.Module | ExportedProgram):
        return model, examples
    raise ModelError(
        f"{name} is a {type(model).__name__}",
        where=reference,
        cure="name an nn.Module, a function that returns one, or one that returns "
        "(model, example inputs)",
    )


def _silence_torch() -> None:
    """Keep torch's own logs off the screen: planish's errors say what there is to say."""
    logging.getLogger("torch").setLevel(logging.CRITICAL + 1)


def _import(place: str, reference: str) -> Any:
    """Import a module by dotted name or by file."""
    try:
        if place.endswith(".py"):
            return _import_file(Path(place), reference)
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(place)
    except ModelError:
        raise
    except Exception as error:  # the user's own code: it may raise anything
        first = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"can't import {place}: {type(error).__name__}: {first}",
            where=_frame(error, reference),
        ) from error


def _import_file(path: Path, reference: str) -> Any:
    if not path.is_file():
        raise ModelError("no such file", where=reference)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


def _lookup(module: Any, name: str, reference: str) -> Any:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            from planish.ir.errors import nearest

            public = [known for known in vars(found) if not known.startswith("_")]
            raise ModelError(f"there is no {part!r}", where=reference, cure=nearest(part, public))
        found = getattr(found, part)
    return found


def _frame(error: BaseException, reference: str) -> str:
    """Return "file:line" of the deepest frame in the user's code, else the reference."""
    import traceback

    skipped = ("site-packages", "importlib", __file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in skipped)
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else reference


def _example(text: str) -> torch.Tensor:
    """Return zeros of a shape such as "1x3x32x32" or "1x16:int64"."""
    import torch

    sizes, _, kind = text.partition(":")
    dtype = getattr(torch, kind or "float32", None)
    try:
        shape = [int(size) for size in sizes.split("x")]
    except ValueError:
        shape = []
    if not isinstance(dtype, torch.dtype) or not shape or min(shape) < 1:
        raise OptionError(
            f"can't read the input shape {text!r}", cure="write 1x3x224x224 or 1x16:int64"
        )
    try:
        return torch.zeros(shape, dtype=dtype)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise OptionError(f"the input shape {text!r} is too large for this machine") from error

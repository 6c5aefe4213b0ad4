"""ONNX import: a model file or ModelProto becomes a graph at the captured level.

    graph = import_onnx("model.onnx", shapes={"x": (1, 3, 48, 192)})

Each ONNX operator has a converter (`converters/`, registered with `@converts`); operators that
ONNX defines by a function of others, and a model's own functions, are converted by their bodies.
`planish.capture` calls this and canonicalizes the graph.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from planish.ir.errors import ModelError, OptionError
from planish.ir.graph import Graph

from .call import NeedsConstantError
from .emitter import OpenSizeError
from .importer import Importer
from .loading import Source, load
from .registry import converts
from .signature import open_batch, real_inputs

if TYPE_CHECKING:
    import onnx

Shapes = Mapping[str, Sequence[int | None]]


def import_onnx(
    model: onnx.ModelProto | str | os.PathLike[str],
    shapes: Shapes | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
) -> Graph:
    """Return the graph of an ONNX model, at the captured level.

    Axis 0 of an input stays open where the model leaves it open and allows it in every operator;
    else it takes the size in `shapes`.

    Args:
        model: A path, or a ModelProto (external data only with a path).
        shapes: The sizes of inputs that the model leaves open, by input name.
        constants: Inputs to fix to these values, by name: they are no inputs of the graph.

    Raises:
        ModelError: No ONNX model, a damaged or a malformed one, or an open size without `shapes`.
        OperatorError: An operator, or a use of one, that isn't supported: names node and reason.
    """
    source = load(model)
    wanted = _sizes(shapes)
    fixed = {name: torch.as_tensor(value) for name, value in (constants or {}).items()}
    return _import(source, wanted, fixed)


def _sizes(shapes: Any) -> dict[str, list[int | None]]:
    """Return shapes as lists.

    Raises:
        OptionError: They are no mapping of names to whole numbers.
    """
    try:
        found = {name: list(sizes) for name, sizes in (shapes or {}).items()}
        return {
            name: [None if size is None else operator.index(size) for size in sizes]
            for name, sizes in found.items()
        }
    except (AttributeError, TypeError) as error:
        raise OptionError(
            f"shapes are not sizes by input name: {shapes!r}",
            cure='write shapes={"x": (1, 3, 224, 224)}',
        ) from error


def import_with_examples(
    model: onnx.ModelProto | str | os.PathLike[str],
    examples: Sequence[torch.Tensor] | None,
    shapes: Shapes | None,
    *,
    opened: bool = True,
) -> Graph:
    """As `import_onnx`, with the shapes of example inputs, in the inputs' order.

    `opened` tries to keep the batch open; without, it takes the size that is given.
    """
    source = load(model)
    wanted = _sizes(shapes)
    if examples is not None:
        names = [value.name for value in real_inputs(source.proto.graph)]
        if len(examples) != len(names):
            raise ModelError(
                f"{len(examples)} example inputs given, the model takes {len(names)}: {names}"
            )
        for name, example in zip(names, examples, strict=True):
            wanted.setdefault(name, list(example.shape))
    return _import(source, wanted, {}) if opened else Importer(source).run(wanted, {})


def _import(
    source: Source, shapes: dict[str, list[int | None]], constants: dict[str, torch.Tensor]
) -> Graph:
    """Import with an open batch where the model leaves it open; else, if it must be, without."""
    opened = dict(shapes)
    for value in real_inputs(source.proto.graph):
        sizes = shapes.get(value.name)
        if sizes and open_batch(value):
            opened[value.name] = [None, *sizes[1:]]
    try:
        return Importer(source).run(opened, constants)
    except OpenSizeError as error:
        if opened == shapes:
            names = [v.name for v in real_inputs(source.proto.graph) if open_batch(v)]
            raise OpenSizeError(
                error.what,
                where=error.where,
                cure=f"fix the batch: shapes={{{', '.join(f'{n!r}: (1, ...)' for n in names)}}}",
            ) from error
        return Importer(source).run(shapes, constants)


__all__ = ["NeedsConstantError", "OpenSizeError", "converts", "import_onnx", "import_with_examples"]

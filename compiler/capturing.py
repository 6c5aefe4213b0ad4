"""Capture: a model becomes a graph. nn.Module, ExportedProgram, .pt2, .onnx, a saved graph."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.export import Dim, ExportedProgram

from planish.ir.errors import ModelError, OperatorError, OptionError, PlanishError, first_line
from planish.ir.graph import Graph
from planish.ir.level import Level
from planish.passes.canonicalize import Canonicalize
from planish.passes.context import Context

from .export_errors import export_error, quiet_torch
from .exported import graph_from_program

if TYPE_CHECKING:
    import onnx


def capture(
    model: torch.nn.Module | ExportedProgram | onnx.ModelProto | str | os.PathLike[str],
    example_inputs: Any = None,
    *,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    canonicalize: bool = True,
) -> Graph:
    """Return the graph of a model.

    The batch size, axis 0 of every input, stays open wherever the model allows it.

    Args:
        model: An nn.Module (captured in eval mode, itself untouched), an ExportedProgram, an
            onnx.ModelProto, the path of a .pt2 or .onnx file, or of a graph written by
            `Graph.save`.
        example_inputs: For an nn.Module: one tensor or array, or a tuple of them, whose shapes and
            dtypes the graph takes. For an ONNX model they say its open sizes.
        shapes: The same for an ONNX model, by input name: {"x": (1, 3, 48, 192)}.
        canonicalize: Bring the graph to the canonical level; False shows what was exported.

    Raises:
        ModelError: The file is not a model; torch.export can't capture the module (names the
            user's line); a weight holds NaN or infinity.
        OperatorError: An operator without a row in the operator table.
    """
    graph = _captured(model, example_inputs, shapes)
    _check_finite(graph)
    if canonicalize and graph.level is Level.CAPTURED:
        graph = _canonical(graph, model, example_inputs, shapes)
    if isinstance(model, torch.nn.Module):
        _check_runs(graph, _examples(example_inputs))
    return graph


def _canonical(
    graph: Graph,
    model: Any,
    example_inputs: Any,
    shapes: Mapping[str, Sequence[int | None]] | None,
) -> Graph:
    """Canonicalize; what can't do with an open axis 0 (steps of an LSTM) is captured without."""
    try:
        return Canonicalize().run(graph, Context()).graph
    except OperatorError:
        if not any(None in spec.shape for spec in graph.inputs):
            raise
        if isinstance(model, torch.nn.Module):
            fixed = _exported(model, _examples(example_inputs), opened=False)
        elif _is_onnx(model) and (example_inputs is not None or shapes):
            fixed = _imported(model, example_inputs, shapes, opened=False)
        else:
            raise
    return Canonicalize().run(fixed, Context()).graph


def _imported(
    model: Any,
    example_inputs: Any,
    shapes: Mapping[str, Sequence[int | None]] | None,
    *,
    opened: bool = True,
) -> Graph:
    from .onnx_import import import_with_examples

    examples = None if example_inputs is None else _examples(example_inputs)
    return import_with_examples(model, examples, shapes, opened=opened)


def _captured(
    model: Any, example_inputs: Any, shapes: Mapping[str, Sequence[int | None]] | None
) -> Graph:
    if _is_onnx(model):
        return _imported(model, example_inputs, shapes)
    if shapes is not None:
        raise OptionError("shapes are for ONNX models", cure="give example inputs")
    if isinstance(model, torch.nn.Module):
        return _exported(model, _examples(example_inputs))
    if isinstance(model, ExportedProgram):
        return graph_from_program(model)
    if isinstance(model, str | os.PathLike):
        return _from_file(Path(model))
    raise ModelError(
        f"can't capture a {type(model).__name__}",
        cure="give an nn.Module, an ExportedProgram, an onnx.ModelProto, a .pt2 or .onnx file, or "
        "a saved graph",
    )


def _is_onnx(model: Any) -> bool:
    if isinstance(model, str | os.PathLike):
        return Path(model).suffix == ".onnx"
    # Without importing onnx, which takes a while: a ModelProto comes from where it is loaded.
    onnx = sys.modules.get("onnx")
    return onnx is not None and isinstance(model, onnx.ModelProto)


def _examples(example_inputs: Any) -> tuple[torch.Tensor, ...]:
    if example_inputs is None:
        raise ModelError(
            "capturing an nn.Module needs example inputs",
            cure="capture(model, torch.zeros(1, 3, 224, 224))",
        )
    values = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    try:
        return tuple(torch.as_tensor(value) for value in values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"an example input is not an array: {error}") from error


def _exported(
    model: torch.nn.Module, examples: tuple[torch.Tensor, ...], *, opened: bool = True
) -> Graph:
    """Export, `opened` with an open batch if the model allows it, else with the example's sizes."""
    training = {name: module.training for name, module in model.named_modules()}
    model.eval()
    try:
        found = _open_batch(model, examples) if opened else None
        return found or graph_from_program(_run_export(model, examples, None))
    finally:
        for name, module in model.named_modules():
            module.training = training[name]


def _open_batch(model: torch.nn.Module, examples: tuple[torch.Tensor, ...]) -> Graph | None:
    """Export with a symbolic axis 0; None if the model fixes it."""
    if any(example.dim() == 0 for example in examples):
        return None
    # torch.export specializes sizes 0 and 1, so the example needs two samples.
    doubled = tuple(torch.cat([e, e])[: max(2, e.shape[0])] for e in examples)
    shapes = _by_parameter(model, tuple({0: Dim.AUTO} for _ in examples))
    try:
        graph = graph_from_program(_run_export(model, doubled, shapes))
    except PlanishError:
        return None  # a model written for some number of samples: exported as it was given
    return graph if all(spec.shape[0] is None for spec in graph.inputs) else None


def _by_parameter(model: torch.nn.Module, each: tuple[Any, ...]) -> tuple[Any, ...]:
    """Nest one entry an input as torch.export wants it: those of *args are one entry."""
    kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return each
    plain = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*each[:plain], each[plain:])


def _run_export(
    model: torch.nn.Module, examples: tuple[torch.Tensor, ...], shapes: Any
) -> ExportedProgram:
    try:
        with torch.no_grad(), warnings.catch_warnings(), quiet_torch():
            # nn.LSTM rebinds its list of weights when it runs; the export is right all the same.
            warnings.filterwarnings("ignore", message="The tensor attribute")
            return torch.export.export(model, examples, dynamic_shapes=shapes)
    except Exception as error:
        raise export_error(error, model, examples) from error


def _from_file(path: Path) -> Graph:
    where = str(path)
    if not path.is_file():
        raise ModelError("no such model file", where=where)
    members = _zip_members(path)
    if "graph.json" in members:
        return Graph.load(path)
    if path.suffix != ".pt2" and not any(name.endswith("archive_format") for name in members):
        raise ModelError(
            "not a model file", where=where, cure="give a .pt2 or .onnx file, or a saved graph"
        )
    # Registers torch.ops.quantized_decomposed, which models quantized by PyTorch are made of.
    importlib.import_module("torch.ao.quantization.fx._decomposed")
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise ModelError(
            f"can't read the exported program: {first_line(error)}",
            where=where,
            cure="it is damaged, truncated or of another torch version; export it again",
        ) from error
    return graph_from_program(program)


def _zip_members(path: Path) -> Sequence[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(
            "not a model file, or a truncated one",
            where=str(path),
            cure="give a .pt2 file or a graph saved by planish",
        ) from error


def _check_runs(graph: Graph, examples: tuple[torch.Tensor, ...]) -> None:
    """Run the graph once: torch.export checks shapes, but not every dtype."""
    try:
        with torch.no_grad():
            graph(*examples)
    except (RuntimeError, IndexError) as error:
        raise ModelError(
            f"the model can't compute on the example inputs: {first_line(error)}",
            cure="give examples of the dtype that the model computes in, as a rule float32",
        ) from error


def _check_finite(graph: Graph) -> None:
    """Refuse NaN, and infinities in weights; canonical form bounds those of masks."""
    for name, tensor in graph.attributes.items():
        if not tensor.is_floating_point():
            continue
        bad = torch.isnan(tensor) if not tensor.requires_grad else ~torch.isfinite(tensor)
        if bool(bad.any()):
            raise ModelError(
                f"the weight {name!r} holds NaN or infinity",
                cure="train it again or load another checkpoint",
            )

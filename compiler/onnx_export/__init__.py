"""ONNX export: graphs of the float and quantized levels as standard ONNX.

    planish.export_onnx(graph, "model.onnx")

Float graphs become float ONNX; quantized ones QDQ: activations between QuantizeLinear and
DequantizeLinear, weights stored as int8, biases as int32. docs/onnx.md says it in full.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx

from planish.ir.errors import ModelError, OptionError
from planish.ir.files import write_beside
from planish.ir.graph import Graph
from planish.ir.level import Level
from planish.passes.canonicalize import Canonicalize
from planish.passes.context import Context

from .exporter import Exporter

__all__ = ["OPSET", "export_onnx", "onnx_model", "onnx_summary"]

OPSET = 17


def onnx_model(graph: Graph, opset: int = OPSET) -> onnx.ModelProto:
    """Return a graph as an ONNX model, checked with strict shape inference.

    Args:
        graph: At the captured, canonical or quantized level; its mode doesn't matter, the model
            is written as it evaluates.
        opset: Version of the operator set, 17 or newer.

    Raises:
        ModelError: An integer graph, one with teacher hooks, or tensors of more than 2 GB.
        OperatorError: An operator that ONNX can't express; names the node.
        OptionError: An opset that can't be written.
    """
    if not isinstance(graph, Graph):
        raise ModelError(f"a {type(graph).__name__} is no graph", cure="capture the model first")
    if graph.annotations:
        raise ModelError(
            f"the graph still carries {', '.join(sorted(graph.annotations))}",
            cure="run remove-teacher-hooks first",
        )
    copy = graph.copy().eval()
    if copy.level is Level.CAPTURED:
        copy = Canonicalize().run(copy, Context()).graph
    model = Exporter(copy.infer(), opset).run()
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"what was written is no valid ONNX: {reason}",
            cure="this is a bug in planish; please report it with the model",
        ) from error
    return model


def export_onnx(graph: Graph, path: str | os.PathLike[str], opset: int = OPSET) -> Path:
    """Write a graph as an ONNX file, all of it or nothing.

    The batch is open, as "batch", where the graph's is; inputs and outputs keep names and order.

    Args:
        graph: At the captured, canonical or quantized level.
        path: File to write.
        opset: Version of the operator set, 17 or newer.

    Raises:
        ModelError: An integer graph, or tensors of more than 2 GB.
        OperatorError: An operator that ONNX can't express; names the node.
        OptionError: An opset that can't be written.
        PlanishError: The file can't be written.
    """
    target = _path(path)
    write_beside(target, onnx_model(graph, opset).SerializeToString())
    return target


def _path(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):
        raise OptionError(f"{path!r} is no path of a file")
    return Path(path)


def onnx_summary(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what an exported file holds, as plain JSON: names, counts, bytes."""
    model = onnx.load(path)
    types = [node.op_type for node in model.graph.node]
    return {
        "bytes": Path(path).stat().st_size,
        "opset": model.opset_import[0].version,
        "inputs": [value.name for value in model.graph.input],
        "outputs": [value.name for value in model.graph.output],
        "nodes": len(types),
        "quantize_linear": types.count("QuantizeLinear"),
    }

"""Float graphs as ONNX files, for other runtimes to be measured on."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from pathlib import Path

import torch

from planish.ir.errors import ModelError
from planish.ir.graph import Graph
from planish.ir.level import Level

from .evaluate import evaluating
from .numerics import random_input

OPSET = 20


def export_onnx(graph: Graph, path: str | os.PathLike[str]) -> Path:
    """Write a float graph as an ONNX file whose batch is open where the graph's is.

    Args:
        graph: At the captured or canonical level.
        path: File to write.

    Raises:
        ModelError: The graph is quantized, torch's exporter isn't installed, or it can't export
            the graph.
    """
    if graph.level > Level.CANONICAL:
        raise ModelError(
            f"a {graph.level.label} graph can't be written as float ONNX",
            cure="export the graph as it was before insert-qdq",
        )
    generator = torch.Generator().manual_seed(0)
    examples = tuple(random_input(spec, generator) for spec in graph.inputs)
    shapes = tuple(
        {axis: torch.export.Dim("batch") for axis, size in enumerate(spec.shape) if size is None}
        for spec in graph.inputs
    )
    target = Path(path)
    # Beside the target, so that a failing export leaves no half-written file there.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = Path(folder) / "model.onnx"
        logger = logging.getLogger("torch.onnx")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            with evaluating(graph):
                torch.onnx.export(
                    graph.module,
                    examples,
                    str(written),
                    dynamo=True,
                    external_data=False,
                    verbose=False,
                    opset_version=OPSET,
                    input_names=[spec.name for spec in graph.inputs],
                    dynamic_shapes=shapes,
                )
        except ImportError as error:
            raise ModelError(
                f"exporting to ONNX needs {error.name or 'onnxscript'}",
                cure="pip install onnxscript",
            ) from error
        except (RuntimeError, torch.onnx.OnnxExporterError) as error:
            first = str(error).strip().splitlines()[0]
            raise ModelError(f"torch.onnx can't export the graph: {first}") from error
        finally:
            logger.setLevel(level)
        os.replace(written, target)
    return target

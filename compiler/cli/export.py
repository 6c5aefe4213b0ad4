"""`planish export`: a graph becomes an ONNX file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import bytes_text, check_writable, print_json, say, stderr
from .models import MODEL_HELP, SHAPE_HELP, load_model


def export(
    graph: Annotated[str, typer.Argument(help=MODEL_HELP)],
    output: Annotated[Path, typer.Option("--out", "--output", "-o", help="File to write.")],
    opset: Annotated[int, typer.Option(help="Version of the operator set, 17 or newer.")] = 17,
    input_shape: Annotated[list[str] | None, typer.Option(help=SHAPE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Export a float or quantized graph to standard ONNX; quantized ones as QDQ."""
    check_writable(output)
    model = load_model(graph, input_shape or ())
    from ..onnx_export import export_onnx, onnx_summary

    with stderr().status("exporting"):
        export_onnx(model, output, opset)
    summary = onnx_summary(output)
    if as_json:
        print_json({"output": str(output), "level": model.level.label, **summary})
        return
    counts = f"{summary['nodes']} nodes, {summary['quantize_linear']} QuantizeLinear among them"
    say(f"wrote {output}: {bytes_text(summary['bytes'])}, opset {opset}, {counts}")

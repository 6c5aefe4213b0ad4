"""planish: a compiler for compressed neural networks.

    graph = planish.capture(model, example_inputs)
    result = planish.Pipeline([passes.FoldBatchNorm(), passes.InsertQDQ()]).run(graph, data=batches)
    artifact = planish.compile(result.graph, target="native")

Names load on first use, so that `import planish` costs next to nothing and a compiled artifact
loads where neither torch nor onnx is installed.
"""

import importlib
from typing import TYPE_CHECKING, Any

from planish.ir.errors import PlanishError
from planish.ir.level import Level

if TYPE_CHECKING:
    from planish import backends, ir, passes
    from planish.backends import load
    from planish.backends.artifact import Artifact
    from planish.backends.target import Target
    from planish.ir.graph import Graph

    from .capturing import capture
    from .compilation import compile
    from .data_sources import ImageFolder, NpzBatches
    from .onnx_export import export_onnx
    from .pipeline import Pipeline, PipelineResult
    from .report import Report
    from .tuning import tune

_LAZY = {
    "Artifact": "planish.backends.artifact",
    "Graph": "planish.ir.graph",
    "ImageFolder": "planish.data_sources",
    "NpzBatches": "planish.data_sources",
    "Pipeline": "planish.pipeline",
    "PipelineResult": "planish.pipeline",
    "Report": "planish.report",
    "Target": "planish.backends.target",
    "capture": "planish.capturing",
    "compile": "planish.compilation",
    "export_onnx": "planish.onnx_export",
    "load": "planish.backends",
    "tune": "planish.tuning",
}
_PACKAGES = ("backends", "ir", "passes")

__version__ = "0.1.0"
__all__ = [
    "Artifact",
    "Graph",
    "ImageFolder",
    "Level",
    "NpzBatches",
    "Pipeline",
    "PipelineResult",
    "PlanishError",
    "Report",
    "Target",
    "__version__",
    "backends",
    "capture",
    "compile",
    "export_onnx",
    "ir",
    "load",
    "passes",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"planish.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'planish' has no attribute {name!r}")
    found = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

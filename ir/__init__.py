"""The graph, its operators and their meaning. Imports nothing else of planish.

Names load on first use, so that a deployed artifact pays for neither torch nor onnx.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    ArtifactError,
    DataError,
    ModelError,
    OperatorError,
    OptionError,
    PassError,
    PipelineError,
    PlanishError,
    TargetError,
    VerifyError,
    nearest,
    unknown,
)
from .level import Level, Numerics

if TYPE_CHECKING:
    from .graph import Graph
    from .history import HistoryEntry, Refused
    from .ops import OperatorRow, register, row
    from .origin import Origin
    from .signature import InputSpec
    from .verifier import verify

_LAZY = {
    "Graph": "graph",
    "HistoryEntry": "history",
    "InputSpec": "signature",
    "OperatorRow": "ops",
    "Origin": "origin",
    "Refused": "history",
    "register": "ops",
    "row": "ops",
    "verify": "verifier",
}

__all__ = [
    "ArtifactError",
    "DataError",
    "Graph",
    "HistoryEntry",
    "InputSpec",
    "Level",
    "ModelError",
    "Numerics",
    "OperatorError",
    "OperatorRow",
    "OptionError",
    "Origin",
    "PassError",
    "PipelineError",
    "PlanishError",
    "Refused",
    "TargetError",
    "VerifyError",
    "nearest",
    "register",
    "row",
    "unknown",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'planish.ir' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)

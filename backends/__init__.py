"""Backends: an integer graph in, a runnable artifact out.

Names load on first use: importing this package imports neither torch nor TVM.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifact import Artifact, TensorInfo, Timing
    from .builder import build
    from .reference import Reference
    from .target import Target
    from .targets import TARGETS, find_target

_LAZY = {
    "Artifact": "artifact",
    "Reference": "reference",
    "TARGETS": "targets",
    "Target": "target",
    "TensorInfo": "artifact",
    "Timing": "artifact",
    "build": "builder",
    "find_target": "targets",
}

__all__ = [
    "TARGETS",
    "Artifact",
    "Reference",
    "Target",
    "TensorInfo",
    "Timing",
    "build",
    "find_target",
    "load",
]


def load(path: str | os.PathLike[str]) -> "Artifact":
    """Read an artifact.

    Raises:
        ArtifactError: Unreadable, foreign, damaged, or for another processor.
    """
    from .artifact import Artifact

    return Artifact.load(path)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'planish.backends' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)

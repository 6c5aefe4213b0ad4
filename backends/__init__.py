"""Backends: an integer graph in, a runnable artifact out.

Names load on first use: importing this package imports neither torch nor TVM.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifact import Artifact, Memory, TensorInfo, Timing
    from .builder import build
    from .reference import Reference
    from .target import Target
    from .targets import TARGETS, find_target, find_targets

_LAZY = {
    "Artifact": "artifact",
    "Memory": "artifact",
    "Reference": "reference",
    "TARGETS": "targets",
    "Target": "target",
    "TensorInfo": "artifact",
    "Timing": "artifact",
    "build": "builder",
    "find_target": "targets",
    "find_targets": "targets",
}

__all__ = [
    "TARGETS",
    "Artifact",
    "Memory",
    "Reference",
    "Target",
    "TensorInfo",
    "Timing",
    "build",
    "find_target",
    "find_targets",
    "load",
]


def load(path: str | os.PathLike[str], target: str | None = None) -> "Artifact":
    """Read an artifact.

    Args:
        path: The file.
        target: Which of its targets to run; by default the best that this machine runs.

    Raises:
        ArtifactError: Unreadable, foreign, damaged, or for another processor.
        OptionError: It has no such target.
    """
    from .artifact import Artifact

    return Artifact.load(path, target)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'planish.backends' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)

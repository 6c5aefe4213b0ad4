"""Passes: graph in, graph out. Imports planish.ir only; each pass loads on first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Pass, PassResult
    from .canonicalize import Canonicalize
    from .context import Context, Progress
    from .fold_batch_norm import FoldBatchNorm
    from .insert_qdq import InsertQDQ
    from .insert_teacher_hooks import InsertTeacherHooks
    from .lower_to_integer import LowerToInteger
    from .prune_channels import PruneChannels
    from .remove_teacher_hooks import RemoveTeacherHooks
    from .train import Train

_LAZY = {
    "Canonicalize": "canonicalize",
    "Context": "context",
    "FoldBatchNorm": "fold_batch_norm",
    "InsertQDQ": "insert_qdq",
    "InsertTeacherHooks": "insert_teacher_hooks",
    "LowerToInteger": "lower_to_integer",
    "Pass": "base",
    "PassResult": "base",
    "Progress": "context",
    "PruneChannels": "prune_channels",
    "RemoveTeacherHooks": "remove_teacher_hooks",
    "Train": "train",
}

__all__ = [
    "Canonicalize",
    "Context",
    "FoldBatchNorm",
    "InsertQDQ",
    "InsertTeacherHooks",
    "LowerToInteger",
    "Pass",
    "PassResult",
    "Progress",
    "PruneChannels",
    "RemoveTeacherHooks",
    "Train",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'planish.passes' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)

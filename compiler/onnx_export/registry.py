"""Which function writes which operator: one emitter a row of the operator table, by its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from planish.ir.ops import row

from .call import Call
from .writer import refused

# Takes a call; returns the name of the ONNX value that it made, or of each of its outputs.
Emit = Callable[[Call], str | tuple[str, ...]]

# The files that hold emitters, each by meaning.
_FILES = (
    "elementwise",
    "floating",
    "layers",
    "movement",
    "reduction",
    "spatial",
    "unary",
)
_EMITTERS: dict[str, Emit] = {}
_loaded = False


def emits(*rows: str) -> Callable[[Emit], Emit]:
    """Register a function as the emitter of rows of the operator table, by their names."""

    def add(emit: Emit) -> Emit:
        for name in rows:
            assert name not in _EMITTERS, name
            _EMITTERS[name] = emit
        return emit

    return add


def emitter(node: fx.Node) -> Emit:
    """Return what writes a node's operator.

    Raises:
        OperatorError: The operator has no row, or its row has no emitter.
    """
    found = _emitters().get(row(node).name)
    if found is None:
        raise refused(node, "can't be written as ONNX")
    return found


def emitted_rows() -> Sequence[str]:
    """Return the names of the rows that can be written."""
    return sorted(_emitters())


def _emitters() -> dict[str, Any]:
    """Import the files of emitters on first use; each registers its own."""
    global _loaded
    if not _loaded:
        for name in _FILES:
            importlib.import_module(f".emitters.{name}", __package__)
        _loaded = True
    return _EMITTERS

"""Which function converts which ONNX operator, from which opset on."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import Call

# Takes a call; returns the value of its output, or those of its outputs in order. None stands for
# an output that nobody can ask for.
Convert = Callable[["Call"], Any]

# The files that hold converters, each by meaning.
_FILES = (
    "contrib",
    "creation",
    "elementwise",
    "indexing",
    "layers",
    "logic",
    "normalization",
    "pooling",
    "qlinear",
    "quantized",
    "recurrent",
    "reduction",
    "shapes",
    "spatial",
)


@dataclass(frozen=True)
class Converter:
    """One registered converter.

    Attributes:
        convert: The function.
        since: The first opset whose meaning of the operator it knows.
        moves: Whether the operator only moves the values of its first input, so that it may work
            on integers by their real values (see `values.Quantized`).
    """

    convert: Convert
    since: int
    moves: bool


_CONVERTERS: dict[tuple[str, str], list[Converter]] = {}
_loaded = False


def converts(
    *operators: str, since: int = 1, domain: str = "", moves: bool = False
) -> Callable[[Convert], Convert]:
    """Register a function as the converter of operators, from opset `since` on.

    Args:
        operators: ONNX operator types: "Conv".
        since: The first opset of this meaning; an earlier registration holds below it.
        domain: The operators' domain; "" is ONNX's own.
        moves: See `Converter.moves`.
    """

    def add(convert: Convert) -> Convert:
        for operator in operators:
            known = _CONVERTERS.setdefault((domain, operator), [])
            known.append(Converter(convert, since, moves))
            known.sort(key=lambda entry: -entry.since)
        return convert

    return add


def converter(domain: str, operator: str, opset: int) -> Converter | None:
    """Return the converter of an operator at an opset, or None."""
    _load()
    known = _CONVERTERS.get((domain, operator), ())
    return next((entry for entry in known if entry.since <= opset), None)


def operators() -> Sequence[tuple[str, str]]:
    """Return every (domain, operator) that has a converter."""
    _load()
    return sorted(_CONVERTERS)


def _load() -> None:
    """Import the files of converters on first use; each registers its own."""
    global _loaded
    if not _loaded:
        for name in _FILES:
            importlib.import_module(f".converters.{name}", __package__)
        _loaded = True

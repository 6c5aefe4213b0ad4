"""What a manifest and a plan must say, so that what uses them need not doubt it.

Checksums tell damage from chance; a file that was edited and sealed again passes them. What is
checked here costs microseconds: types, sizes below a limit, and what must agree. The machine code
itself is trusted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from planish.ir.errors import ArtifactError

# Of any memory, in bytes: a terabyte.
_MOST_BYTES = 1 << 40
_MOST_THREADS = 1 << 16
# NumPy's kinds of dtype: bool, integers, floats.
_KINDS = "biuf"


@contextlib.contextmanager
def damage_named(where: str | None) -> Iterator[None]:
    """Make one ArtifactError of what reading a manifest that can't be raises.

    Args:
        where: The artifact, for the error.
    """
    try:
        yield
    except MemoryError as error:
        raise ArtifactError(
            "the artifact needs more memory than this machine has",
            where=where,
            cure="compile the model for a smaller batch, or compile it anew if it is small",
        ) from error
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ArtifactError(
            f"the artifact is damaged: its manifest says what can't be ({error!r})",
            where=where,
            cure="compile the model anew",
        ) from error


def check_manifest(manifest: dict[str, Any]) -> None:
    """Check what all targets of an artifact share.

    Raises:
        ValueError: It says what can't be, as do TypeError and KeyError.
    """
    _count("threads", manifest["threads"], _MOST_THREADS, least=1)
    for kind in ("inputs", "outputs"):
        for entry in _typed(kind, manifest[kind], list):
            _check_tensor(_typed(kind, entry, dict))
    if not manifest["outputs"]:
        raise ValueError("there are no outputs")
    _check_structure(manifest["structure"], len(manifest["outputs"]))
    for entry in _typed("targets", manifest["targets"], list):
        _check_target(_typed("targets", entry, dict))


def check_plan(plan: dict[str, Any]) -> None:
    """Check one target's plan.

    Raises:
        ValueError: It says what can't be, as do TypeError and KeyError.
    """
    _typed("plan", plan, dict)
    memory = _typed("memory", plan["memory"], dict)
    for name, size in memory.items():
        _count(name, size)
    for name, same in (("workspace_bytes", "activations"), ("parameter_bytes", "parameters")):
        if _count(name, plan[name]) != memory[same]:
            raise ValueError(f"{name} is {plan[name]}, and the memory's {same} {memory[same]}")
    for recipe in _typed("recipes", plan["recipes"], list):
        _count("offset", recipe["offset"], plan["parameter_bytes"])
    if "launches" not in plan:
        _typed("entry", plan["entry"], str)
        _typed("needs_runtime", plan["needs_runtime"], bool)


def _check_tensor(entry: dict[str, Any]) -> None:
    dtype = np.dtype(_typed("dtype", entry["dtype"], str))
    if dtype.name != entry["dtype"] or dtype.kind not in _KINDS:
        raise ValueError(f"dtype is {entry['dtype']!r}")
    shape = [_count("shape", size) for size in _typed("shape", entry["shape"], list)]
    _count("shape", prod(shape) * dtype.itemsize)
    _typed("name", entry["name"], str)
    if entry.get("scale") is not None:
        _typed("scale", entry["scale"], float)
        _typed("zero_point", entry["zero_point"], int)
        _typed("quantized_dtype", entry["quantized_dtype"], str)


def _check_structure(structure: Any, outputs: int) -> None:
    """Check how outputs are nested; see `ir.calling.Structure`."""
    if isinstance(structure, int):
        _count("structure", structure, outputs - 1)
        return
    kind, children = _typed("structure", structure, list)
    if kind not in ("tuple", "list", "dict"):
        raise ValueError(f"structure has a {kind!r}")
    for child in _typed("structure", children, list):
        if kind == "dict":
            key, child = child
            _typed("structure", key, str)
        _check_structure(child, outputs)


def _check_target(entry: dict[str, Any]) -> None:
    _typed("name", entry["name"], str)
    if _typed("machine", entry["machine"], str) == "cuda":
        major, minor = _typed("capability", entry["capability"], list)
        _count("capability", major)
        _count("capability", minor)
    for flag in _typed("cpu_flags", entry["cpu_flags"], list):
        _typed("cpu_flags", flag, str)


def _typed(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r:.40}")
    return value


def _count(name: str, value: Any, most: int = _MOST_BYTES, least: int = 0) -> int:
    """Return a whole number between two limits, which are allowed."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} is {value!r:.40}")
    return value

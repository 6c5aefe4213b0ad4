"""How a model is called: inputs by position or name, outputs nested as the model returned them.

A compiled artifact is called the same way as a graph, so nothing here imports torch.
"""

from __future__ import annotations

from typing import Any

from .errors import DataError

# How outputs are nested, as plain JSON: an int is the index of a flat output; a list is
# ["tuple" | "list", [children]] or ["dict", [[key, child], ...]].
Structure = Any


def flatten_structure(value: Any, flat: list[Any]) -> Structure:
    """Append the leaves of a nested output to `flat` and return how they were nested."""
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, [flatten_structure(child, flat) for child in value]]
    if isinstance(value, dict):
        return [
            "dict",
            [[str(key), flatten_structure(child, flat)] for key, child in value.items()],
        ]
    flat.append(value)
    return len(flat) - 1


def nest_structure(structure: Structure, flat: list[Any]) -> Any:
    """Rebuild a nested output from its flat leaves: the inverse of `flatten_structure`."""
    if isinstance(structure, int):
        return flat[structure]
    kind, children = structure
    if kind == "dict":
        return {key: nest_structure(child, flat) for key, child in children}
    values = [nest_structure(child, flat) for child in children]
    return tuple(values) if kind == "tuple" else values


def bind_arguments(
    names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any], called: str
) -> list[Any]:
    """Order positional and named arguments as `names` are, with one clear error each.

    Args:
        names: The inputs, in order.
        args: Given by position.
        kwargs: Given by name.
        called: What is called, in messages: "model" or "artifact".
    """
    if len(args) > len(names):
        raise DataError(f"{len(args)} inputs given, the {called} takes {len(names)}: {names}")
    bound = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in names:
            raise DataError(
                f"no input is named {name!r}", cure=f"the {called}'s inputs are {names}"
            )
        if name in bound:
            raise DataError(f"input {name!r} was given twice")
        bound[name] = value
    missing = [name for name in names if name not in bound]
    if missing:
        raise DataError(f"{len(bound)} inputs given, the {called} also takes {missing}")
    return [bound[name] for name in names]

"""Recipes: a pipeline as TOML and as Python, both ways.

    verify = true
    check_numerics = false
    stop_after = "fold-batch-norm"

    [[pass]]
    name = "prune-channels"
    macs = 0.5

The keys before the first pass are the options of `Pipeline`; those of a pass are its fields. What
is left out keeps its default.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planish.ir.errors import OptionError, PlanishError, nearest
from planish.passes.base import Pass
from planish.passes.registry import build_pass

_OPTIONS: dict[str, tuple[type, ...]] = {
    "verify": (bool,),
    "check_numerics": (bool,),
    "dump": (str,),
    "stop_after": (str, int),
}
_DEFAULTS = {"verify": True, "check_numerics": False, "dump": None, "stop_after": None}
_PASS_LINE = re.compile(r"^[ \t]*\[\[[ \t]*pass[ \t]*\]\]", re.MULTILINE)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Recipe:
    """What a recipe says.

    Attributes:
        passes: In the written order.
        options: Those of the pipeline that are written.
        where: The file, for errors.
    """

    passes: list[Pass]
    options: dict[str, Any]
    where: str


def read_recipe(recipe: str | os.PathLike[str]) -> Recipe:
    """Read a recipe; whether its passes stand in a possible order is for the pipeline to say.

    Args:
        recipe: The path of a TOML file, or TOML text (anything with a line break or "=").

    Raises:
        OptionError: The file can't be read, isn't TOML, or names an unknown pass or option; the
            error names file, line and pass.
    """
    text, where = _source(recipe)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"not TOML: {error}", where=where) from error
    entries = data.pop("pass", [])
    options = _pipeline_options(data, where)
    if not isinstance(entries, list) or not entries:
        raise OptionError("the recipe has no [[pass]]", where=where)
    lines = [text.count("\n", 0, match.start()) + 1 for match in _PASS_LINE.finditer(text)]
    passes: list[Pass] = []
    for position, entry in enumerate(entries, 1):
        # Passes may also be written as one inline array; their lines are then unknown.
        line = f", line {lines[position - 1]}" if len(lines) == len(entries) else ""
        passes.append(_read_pass(entry, f"{where}{line}, pass {position}"))
    return Recipe(passes, options, where)


def write_recipe(passes: Sequence[Pass], options: Mapping[str, Any]) -> str:
    """Return the TOML text that `read_recipe` reads these passes and pipeline's options from.

    Raises:
        OptionError: A pass holds an option that TOML can't say, such as a graph.
    """
    lines = [f"{name} = {_toml(v, 'pipeline')}" for name, v in _set_options(options).items()]
    for item in passes:
        lines += ["", "[[pass]]", f"name = {_toml(item.name, item.name)}"]
        for name in item.options():
            # The field, not what options() says of it: the history may name a graph by its digest.
            value = _toml(getattr(item, name), f"{item.name}, option {name}")
            lines.append(f"{_key(name)} = {value}")
    return "\n".join(lines).lstrip("\n") + "\n"


def python_form(passes: Sequence[Pass], options: Mapping[str, Any]) -> str:
    """Return the Python expression, for `import planish; from planish import passes`."""
    lines = ["planish.Pipeline(", "    ["]
    lines += [f"        {_call(item)}," for item in passes]
    lines.append("    ],")
    lines += [f"    {name}={value!r}," for name, value in _set_options(options).items()]
    return "\n".join([*lines, ")"])


def _source(recipe: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the recipe's text and what to call it in errors."""
    if isinstance(recipe, str) and ("\n" in recipe or "=" in recipe):
        return recipe, "recipe"
    path = Path(recipe)
    try:
        return path.read_text(), str(path)
    except FileNotFoundError as error:
        raise OptionError("no such recipe", where=str(path)) from error
    except OSError as error:
        raise OptionError(
            f"can't read the recipe: {error.strerror or error}", where=str(path)
        ) from error
    except UnicodeDecodeError as error:
        raise OptionError("the recipe is not text", where=str(path)) from error


def _pipeline_options(data: dict[str, Any], where: str) -> dict[str, Any]:
    for name, value in data.items():
        if name not in _OPTIONS:
            raise OptionError(
                f"unknown pipeline option {name!r}",
                where=where,
                cure=nearest(name, [*_OPTIONS, "pass"]),
            )
        # bool is an int, but no position.
        if type(value) not in _OPTIONS[name]:
            kinds = " or ".join(kind.__name__ for kind in _OPTIONS[name])
            raise OptionError(f"{name} must be a {kinds}, not {value!r}", where=where)
    return data


def _read_pass(entry: Any, where: str) -> Pass:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise OptionError('a pass needs a name, such as name = "insert-qdq"', where=where)
    options = {name: value for name, value in entry.items() if name != "name"}
    try:
        return build_pass(entry["name"], options)
    except PlanishError as error:
        error.where = f"{where}: {error.where}" if error.where else where
        raise


def _set_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pipeline's own options that differ from their defaults."""
    return {name: value for name, value in options.items() if value != _DEFAULTS[name]}


def _call(item: Pass) -> str:
    options = ", ".join(f"{name}={getattr(item, name)!r}" for name in item.options())
    return f"passes.{type(item).__name__}({options})"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _toml(value: Any, where: str) -> str:
    """Spell a plain value in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, str | os.PathLike):
        return _string(os.fspath(value))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item, where) for item in value) + "]"
    if isinstance(value, dict):
        items = (f"{_key(str(key))} = {_toml(item, where)}" for key, item in value.items())
        return "{ " + ", ".join(items) + " }" if value else "{}"
    raise OptionError(
        f"a {type(value).__name__} can't be written in a recipe",
        where=where,
        cure="recipes hold numbers, texts, lists and tables; leave this pipeline in Python",
    )


def _float(value: float) -> str:
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return repr(value)  # "1e-05", "0.5": Python's shortest form is TOML too


def _string(value: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    spelled = (escapes.get(c, c if c.isprintable() else f"\\U{ord(c):08X}") for c in value)
    return '"' + "".join(spelled) + '"'

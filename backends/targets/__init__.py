"""The registry of targets: one line each, name to "module:function", loaded on first use."""

from __future__ import annotations

import importlib

from planish.ir.errors import OptionError, unknown

from ..target import Target

TARGETS: dict[str, str] = {
    "x86-64-v3": "x86_64_v3:x86_64_v3",
    "native": "native:native",
}


def find_target(name: str | Target) -> Target:
    """Return the target with this name; a Target is returned as it is.

    Raises:
        OptionError: No target has this name; the nearest ones are named.
        TargetError: "native" on a processor that no target fits.
    """
    if isinstance(name, Target):
        return name
    if not isinstance(name, str):
        raise OptionError(f"a target is a name or a Target, not {name!r}")
    if name not in TARGETS:
        raise unknown("target", name, TARGETS)
    module, function = TARGETS[name].split(":")
    return getattr(importlib.import_module(f".{module}", __name__), function)()


target = find_target

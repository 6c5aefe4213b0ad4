"""The registry of targets: one line each, name to "module:function", loaded on first use."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace

from planish.ir.errors import OptionError, unknown

from ..target import Target

# Best first: the first one that a processor can run is the fastest one for it. "native" picks by
# this order when it compiles, an artifact that holds several targets when it loads: on a GPU, if
# there is one.
TARGETS: dict[str, str] = {
    "cuda-sm90": "cuda_sm90:cuda_sm90",
    "cuda-sm80": "cuda_sm80:cuda_sm80",
    "cuda-sm75": "cuda_sm75:cuda_sm75",
    "cuda-sm61": "cuda_sm61:cuda_sm61",
    "x86-avx512vnni": "x86_avx512vnni:x86_avx512vnni",
    "x86-avxvnni": "x86_avxvnni:x86_avxvnni",
    "x86-64-v4": "x86_64_v4:x86_64_v4",
    "x86-64-v3": "x86_64_v3:x86_64_v3",
    "armv8-i8mm": "armv8_i8mm:armv8_i8mm",
    "armv8-dotprod": "armv8_dotprod:armv8_dotprod",
    "armv8": "armv8:armv8",
    "native": "native:native",
}
BEST_FIRST: tuple[str, ...] = tuple(name for name in TARGETS if name != "native")


def find_target(name: str | Target) -> Target:
    """Return the target with this name; a Target is returned as it is.

    Raises:
        OptionError: No target has this name (the nearest ones are named), or it names several.
        TargetError: "native" on a processor that no target fits.
    """
    if isinstance(name, Target):
        return name
    if not isinstance(name, str):
        raise OptionError(f"a target is a name or a Target, not {name!r}")
    if "," in name:
        raise OptionError(f"{name!r} names several targets", cure="name one of them here")
    if name not in TARGETS:
        raise unknown("target", name, TARGETS)
    module, function = TARGETS[name].split(":")
    return getattr(importlib.import_module(f".{module}", __name__), function)()


def find_targets(names: str | Target | Sequence[str | Target]) -> list[Target]:
    """Return the targets with these names, best first; targets of your own stand before named ones.

    "native" beside the target that it stands for here is that target: their code is the same.

    Raises:
        OptionError: No name, an unknown one, or one twice.
        TargetError: "native" on a processor that no target fits.
    """
    if isinstance(names, str | Target):
        return [find_target(names)]
    if not isinstance(names, Sequence):
        raise OptionError(f"a target is a name or a Target, not {names!r}")
    found = [find_target(name) for name in names]
    if not found:
        raise OptionError("no target to compile for", cure="give at least one, such as 'native'")
    listed = [target.name for target in found]
    for name in listed:
        if listed.count(name) > 1:
            raise OptionError(f"target {name!r} is given twice", cure="give each target once")
    kinds = [_kind(target) for target in found if target.name != "native"]
    found = [t for t in found if t.name != "native" or _kind(t) not in kinds]
    return sorted(found, key=_rank)


def _kind(target: Target) -> Target:
    """Return what a target is apart from its name."""
    return replace(target, name="", description="")


def _rank(target: Target) -> int:
    """Return a target's place in the order, -1 for one that is not registered."""
    if target.name in BEST_FIRST:
        return BEST_FIRST.index(target.name)
    kinds = [_kind(find_target(name)) for name in BEST_FIRST] if target.name == "native" else []
    return kinds.index(_kind(target)) if _kind(target) in kinds else -1

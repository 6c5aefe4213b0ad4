"""native: the best target for the processor that compiles."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from planish.ir.errors import TargetError

from ..cpu import cpu_flags, machine
from ..target import Target
from . import BEST_FIRST, find_target


def native() -> Target:
    """Return the best target for this machine, under the name "native".

    Raises:
        TargetError: It is neither an x86 processor with AVX2 nor a 64-bit ARM processor.
    """
    best = best_for(machine(), cpu_flags())
    return replace(best, name="native", description=f"this processor: {best.name}")


def best_for(family: str, flags: Collection[str]) -> Target:
    """Return the best named target for a processor.

    Args:
        family: Its instruction set's family: "x86_64".
        flags: Its features as Linux spells them.

    Raises:
        TargetError: No target fits it.
    """
    targets = [target for target in map(find_target, BEST_FIRST) if target.machine == family]
    if not targets:
        raise TargetError(
            f"no target for this machine ({family})", cure="compile for a named target"
        )
    for target in targets:
        if set(target.cpu_flags) <= set(flags):
            return target
    missing = ", ".join(sorted(set(targets[-1].cpu_flags) - set(flags)))
    raise TargetError(
        f"this processor lacks {missing}, which every target for it needs",
        cure="compile for a named target and run the artifact on a newer processor",
    )

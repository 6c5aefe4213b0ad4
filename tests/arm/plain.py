"""A target for any ARM processor, for tests of what is around the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planish.backends.stand_in import stand_in
from planish.backends.target import Target
from planish.backends.targets import find_target


@dataclass(frozen=True)
class PlainArm(Target):
    """An x86 target's schedule, with its instructions spelled in plain arithmetic."""

    @property
    def machine(self) -> str:
        """The instruction set's family."""
        return "aarch64"

    @property
    def tvm_target(self) -> dict[str, Any]:
        """The target as TVM spells it."""
        return {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "generic"}


def plain_arm() -> Target:
    """Return the target. It is linked by what CXX names: set it to the cross compiler."""
    like = stand_in(find_target("x86-64-v3"))
    return PlainArm(**{**vars(like), "name": "plain-arm", "cpu_flags": ()})

"""What a target is: frozen data that rules and kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planish.ir.errors import TargetError


@dataclass(frozen=True)
class Target:
    """One piece of hardware to compile for.

    Attributes:
        name: The registered name: "x86-64-v3".
        description: One line for lists.
        cpu: LLVM's name of the processor or level: "x86-64-v3".
        features: LLVM features beyond `cpu`: ("+avx512vnni",).
        cpu_flags: What /proc/cpuinfo must list for an artifact to run.
        instruction: The dot-product instruction, a name in `kernels.instructions`.
        vector_bits: Width of the vectors that the kernels use.
        tile: (pixels, output channels) that one pass of a dense kernel keeps in registers.
        channel_multiple: Channels in multiples of this fill the vectors; pruning rounds to it.
        activation_dtype: Dtype that activations are best quantized to.
        storage_dtype: How an activation lies in memory between kernels; "int16" holds the same
            values 0..255, expanded for instructions that multiply 16-bit operands.
        layout: Memory order of an activation with height and width.
        triple: LLVM's name of machine and system. It is fixed, so that code depends on no host.
        matrix_instruction: The instruction that multiplies small matrices, if there is one; the
            strategy "matrix" uses it.
        stand_in: Spell the processor's own instructions in plain arithmetic (see `stand_in`).
        capability: NVIDIA's compute capability that the code is for, (8, 0); None: no GPU.
        compact_multiple: An image of few channels, which only dense layers read, keeps its pixels
            in multiples of this many bytes.
        task_lanes: Most neighbouring channels that one task of a pool, mean or interpolation
            computes: few on a GPU, whose many threads are its vectors.
    """

    name: str
    description: str
    cpu: str
    features: tuple[str, ...]
    cpu_flags: tuple[str, ...]
    instruction: str
    vector_bits: int
    tile: tuple[int, int]
    channel_multiple: int = 8
    activation_dtype: str = "uint8"
    storage_dtype: str = "uint8"
    layout: str = "nhwc"
    triple: str = "x86_64-unknown-linux-gnu"
    matrix_instruction: str | None = None
    stand_in: bool = False
    capability: tuple[int, int] | None = None
    compact_multiple: int = 1
    task_lanes: int = 32

    @property
    def registers(self) -> int:
        """Vector registers that a tile may fill.

        AVX-512 and ARM have 32; LLVM copies and spills in loops that need all.
        """
        return 16 if self.vector_bits == 256 else 31

    @property
    def instructions(self) -> tuple[str, ...]:
        """What multiplies int8, the first where it fits: `smull` stands before `smlal`."""
        if self.matrix_instruction is not None:
            return (self.matrix_instruction, self.instruction)
        return ("smull", "smlal") if self.instruction == "smlal" else (self.instruction,)

    @property
    def tuned_as(self) -> str:
        """Which shipped table of choices is for it: targets that generate the same code share it.

        It is named by what decides about speed, so "native" finds the table of what it stands for.
        """
        return f"{self.cpu}-{self.instruction}-{self.vector_bits}"

    @property
    def lanes(self) -> int:
        """32-bit accumulators in one vector."""
        return self.vector_bits // 32

    @property
    def machine(self) -> str:
        """The instruction set's family: "x86_64", "aarch64"; "cuda" for a GPU.

        Stand-ins are for x86.
        """
        if self.capability is not None:
            return "cuda"
        return "x86_64" if self.stand_in else self.triple.partition("-")[0]

    @property
    def tvm_target(self) -> dict[str, Any]:
        """The target as TVM spells it."""
        if self.capability is not None:
            return {"kind": "cuda", "arch": self.cpu}
        if self.stand_in:
            x86 = "x86_64-unknown-linux-gnu"
            return {"kind": "llvm", "mtriple": x86, "mcpu": "x86-64-v3"}
        target: dict[str, Any] = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.cpu}
        return {**target, "mattr": list(self.features)} if self.features else target


def require_processor(target: Target) -> None:
    """Raise TargetError for a GPU, whose kernels are compiled and measured all together."""
    if target.capability is not None:
        raise TargetError(
            f"target {target.name!r} is a GPU, whose kernels can't be profiled or tuned",
            cure="choose a target for a processor",
        )


def describe_target(target: Target) -> dict[str, Any]:
    """Return the manifest's entry of a target: what a machine must have to run its code."""
    entry = {
        "name": target.name,
        "machine": target.machine,
        "cpu_flags": sorted(target.cpu_flags),
        "instruction": target.instruction,
    }
    return entry if target.capability is None else {**entry, "capability": target.capability}

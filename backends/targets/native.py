"""native: the best target for the processor that compiles."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from planish.ir.errors import TargetError

from ..cpu import cpu_flags, machine
from ..target import Target
from .x86_64_v3 import FLAGS, x86_64_v3

AVX512 = ("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")


def native() -> Target:
    """Return the target for this machine.

    Raises:
        TargetError: It is no x86 processor with AVX2.
    """
    if machine() != "x86_64":
        raise TargetError(
            f"no target for this machine ({machine()})", cure="compile for a named target"
        )
    return best_x86(cpu_flags())


def best_x86(flags: Collection[str]) -> Target:
    """Return the best target for a processor with these /proc/cpuinfo flags.

    `vpdpbusd` (u8 x s8, four products into 32 bits, no saturation) reads activations as bytes and
    does 4 times the work of `vpmaddwd` an instruction pair. With AVX-512 it runs on 512-bit
    vectors and 32 registers, with AVX-VNNI on 256-bit vectors and 16 registers.
    """
    if not set(FLAGS) <= set(flags):
        missing = ", ".join(sorted(set(FLAGS) - set(flags)))
        raise TargetError(
            f"this processor lacks {missing}, which every x86 target needs",
            cure="compile for a named target and run the artifact on a newer processor",
        )
    if {*AVX512, "avx512_vnni"} <= set(flags):
        return Target(
            name="native",
            description="this processor: AVX-512 with VNNI",
            cpu="x86-64-v4",
            features=("+avx512vnni",),
            cpu_flags=(*FLAGS, *AVX512, "avx512_vnni"),
            instruction="vpdpbusd",
            vector_bits=512,
            tile=(8, 16),
        )
    if "avx_vnni" in flags:
        return Target(
            name="native",
            description="this processor: AVX2 with VNNI",
            cpu="x86-64-v3",
            features=("+avxvnni",),
            cpu_flags=(*FLAGS, "avx_vnni"),
            instruction="vpdpbusd",
            vector_bits=256,
            tile=(4, 16),
        )
    return replace(x86_64_v3(), name="native", description="this processor: AVX2")

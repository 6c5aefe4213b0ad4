"""What this machine's processor can do."""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
# Entries of the auxiliary vector, and the bits in them (Linux's arch/arm64 uapi/asm/hwcap.h).
_AT_HWCAP, _AT_HWCAP2 = 16, 26
_ARM_BITS = {
    "asimd": (_AT_HWCAP, 1),
    "asimddp": (_AT_HWCAP, 20),
    "i8mm": (_AT_HWCAP2, 13),
}


@cache
def cpu_flags() -> frozenset[str]:
    """Return the processor's features as Linux spells them ("avx2"); empty where unknown."""
    return _arm_flags() if machine() == "aarch64" else _listed_flags()


def _listed_flags() -> frozenset[str]:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def _arm_flags() -> frozenset[str]:
    """Return what the kernel tells each process: under emulation /proc is the host's."""
    try:
        read = ctypes.CDLL(None).getauxval
    except (AttributeError, OSError):
        return frozenset()
    read.restype, read.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
    return frozenset(name for name, (entry, bit) in _ARM_BITS.items() if read(entry) >> bit & 1)


def machine() -> str:
    """Return the instruction set's family: "x86_64", "aarch64"."""
    return platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64")

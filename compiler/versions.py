"""Which software and hardware made a result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import planish

PACKAGES = ("torch", "apache-tvm", "apache-tvm-ffi", "numpy", "onnx", "onnxruntime", "openvino")


def versions() -> dict[str, str]:
    """Return the versions of Python, planish and what it stands on; absent ones are left out."""
    found = {"planish": planish.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Return the processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

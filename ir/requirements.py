"""Packages that planish needs for a part of its work, and what to say where one is missing.

Only the standard library is imported here: a compiled artifact runs where little is installed.
"""

from __future__ import annotations

from importlib import metadata

from .errors import PlanishError

# Module: its distribution, and what it is for.
_PACKAGES = {
    "matplotlib": ("matplotlib", "draws the charts of reports"),
    "numpy": ("numpy", "holds arrays"),
    "onnx": ("onnx", "reads and writes ONNX models"),
    "onnx_graphsurgeon": ("onnx-graphsurgeon", "writes ONNX models"),
    "safetensors": ("safetensors", "reads and writes weights"),
    "torch": ("torch", "reads models and changes graphs"),
    "tvm": ("apache-tvm", "compiles kernels"),
    "tvm_ffi": ("apache-tvm-ffi", "calls compiled kernels"),
}


def missing_package(
    error: ModuleNotFoundError, kind: type[PlanishError] = PlanishError
) -> PlanishError | None:
    """Return the error of this kind that says what to install, or None for a foreign module.

    Args:
        error: What a failed import raised.
        kind: Class of the error to make.
    """
    module = (error.name or "").partition(".")[0]
    if module not in _PACKAGES:
        return None
    name, purpose = _PACKAGES[module]
    return kind(
        f"the package {name} is not installed; it {purpose}", cure=f"pip install '{_wanted(name)}'"
    )


def _wanted(name: str) -> str:
    """Return a distribution with the versions that planish asks for, as pip takes them."""
    try:
        wanted = metadata.requires("planish") or []
    except metadata.PackageNotFoundError:  # run from its source, not installed
        return name
    for requirement in wanted:
        text = requirement.partition(";")[0].strip()
        if text.startswith(name) and text[len(name) :][:1] in "<>=!~":
            return text
    return name

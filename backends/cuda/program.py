"""The plan of a GPU: kernels as CUDA C text, and what to launch, in order.

Each step of a plan is one launch whose grid and arguments are constants: a kernel is compiled for
the numbers of its step, and pointers are places in memory that loading lays out.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..container import CUBIN
from ..kernels import Kernel
from ..plan import Parameter, Plan, Pointer, Step
from .launch import Launch, Place
from .nvrtc import compile_cubin
from .source import cuda_source, prelude
from .spread import is_threaded, spread, with_numbers


@dataclass(frozen=True)
class Program:
    """What a plan becomes.

    Attributes:
        text: The kernels as CUDA C; a prelude comes before it (see `source`).
        setup: Made once, before the first call.
        launches: Of each call, in order.
        names: What a listing calls each kernel, by symbol.
    """

    text: str
    setup: tuple[Launch, ...]
    launches: tuple[Launch, ...]
    names: dict[str, str]


def write_program(plan: Plan) -> Program:
    """Return the kernels and launches of a plan whose values are placed."""
    functions: dict[str, Any] = {}
    names: dict[str, str] = {}
    known: dict[Any, str | None] = {}
    count: Counter[str] = Counter()
    calls: list[tuple[str, Step]] = []
    for step in plan.steps:
        key = (step.kernel, step.scalars)
        if key not in known:
            function = threaded(step.kernel, step.scalars)
            known[key] = None
            if function is not None:
                symbol = _symbol(step.kernel, count)
                known[key], functions[symbol], names[symbol] = symbol, function, step.kernel.name
        symbol = known[key]
        if symbol is not None:
            calls.append((symbol, step))
    if not functions:
        return Program("", (), (), {})
    text, signatures = cuda_source(functions, plan.target.cpu)
    setup, launches = (
        tuple(_launch(name, step, signatures[name]) for name, step in calls if step.once == once)
        for once in (True, False)
    )
    return Program(text, setup, launches, names)


def compile_program(plan: Plan) -> tuple[bytes, dict[str, Any]]:
    """Compile a plan whose values are placed; return the cubin and its part of the manifest.

    Raises:
        TargetError: NVIDIA's compiler is not installed, or too old for the target.
    """
    program = write_program(plan)
    cubin = compile_cubin(prelude() + program.text, plan.target.cpu)
    kernels = {
        symbol: {"name": name, **asdict(cubin.resources[symbol])}
        for symbol, name in program.names.items()
    }
    setup, launches = (
        [launch.to_json() for launch in part] for part in (program.setup, program.launches)
    )
    entry = {"library": CUBIN, "kernels": kernels, "setup": setup, "launches": launches}
    return cubin.content, entry


def threaded(kernel: Kernel, scalars: tuple[int | float, ...]) -> Any | None:
    """Return a kernel as a function of pointers that says what each thread does, or None.

    Args:
        kernel: What to compute; its function may have threads already.
        scalars: The numbers that it is compiled for. With some there is nothing to compute.
    """
    function = with_numbers(kernel.function(), scalars)
    return function if is_threaded(function) else spread(function, kernel.family)


def _symbol(kernel: Kernel, count: Counter[str]) -> str:
    family = re.sub(r"\W", "_", kernel.family)
    count[family] += 1
    return f"{family}_{count[family] - 1}"


def _launch(symbol: str, step: Step, signature: Any) -> Launch:
    places = tuple(_place(pointer) for pointer in step.pointers)
    return Launch(symbol, signature.grid, signature.block, signature.shared, places)


def _place(pointer: Pointer | Parameter) -> Place:
    """Return where a pointer points."""
    if isinstance(pointer, Parameter):
        return "parameters", 0, pointer.offset
    value = pointer.value.owner
    offset = value.offset if value.place in ("workspace", "parameters") else 0
    size = np.dtype(value.layout.dtype).itemsize
    return value.place, value.index, offset + pointer.elements * size

"""The assembly that a graph compiles to, for any target: nothing of it is run.

`busiest_loop(machine_code(graph, "x86-avxvnni"), "vpdpbusd").spills`, see `assembly`.
"""

from __future__ import annotations

from planish.ir import Graph

from .builder import fill_plan
from .emit import emit_module
from .link import assembly
from .plan import Plan
from .target import Target, require_processor
from .targets import find_target


def machine_code(graph: Graph, target: str | Target, *, threads: int = 1) -> str:
    """Return the assembly text of a graph's kernels and entry.

    Args:
        graph: As `build` takes it.
        target: A target or its name; the processor need not be here.
        threads: Threads that a call may use.

    Raises:
        TargetError: It is a GPU.
    """
    chosen = find_target(target)
    require_processor(chosen)
    plan = Plan(chosen, threads)
    inputs, outputs, workspace = fill_plan(graph, plan)
    return assembly(emit_module(plan, inputs, outputs, workspace), plan.target)

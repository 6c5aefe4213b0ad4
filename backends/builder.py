"""The compiler's last step: a graph with a fixed batch becomes an artifact."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
import torch.fx
from numpy.typing import NDArray

from planish.ir import Graph, HistoryEntry, Level, OperatorError, OptionError
from planish.ir.coverage import int8_coverage
from planish.ir.errors import FallbackError
from planish.ir.ops import arguments
from planish.ir.signature import dtype_name

from .artifact import Artifact
from .choice import Choices
from .container import write_container
from .copying import copy_into
from .emit import ENTRY, emit_module
from .layout import dense_layout
from .link import Toolchain, compile_library
from .lower.movement import stored_output
from .lowering import Lowering
from .memory import describe_memory, place_values
from .operators import is_integer
from .plan import Plan
from .target import Target, describe_target
from .targets import find_targets
from .value import Value

_planish = torch.ops.planish
# Each is a thread of the system; no processor that targets are for has as many.
MOST_THREADS = 1024
_QUANTIZE, _DEQUANTIZE = _planish.quantize.default, _planish.dequantize.default


def build(
    graph: Graph,
    target: str | Target | Sequence[str | Target],
    *,
    threads: int = 1,
    io: Literal["float", "integer"] = "float",
    strict: bool = False,
    history: Sequence[HistoryEntry | dict[str, Any]] | None = None,
    database: Choices | None = None,
    toolchain: Toolchain | None = None,
) -> Artifact:
    """Compile a graph.

    Args:
        graph: On the integer level, or float (captured or canonical); its batch size fixed.
        target: A target or its name; or several, of which loading chooses the best.
        threads: Threads that a call may use. Results don't depend on it.
        io: "integer" takes and returns quantized tensors where the graph quantizes its inputs
            and dequantizes its outputs.
        strict: Whether an operator that falls back to float is an error.
        history: What to record as done; the graph's own history by default.
        database: Measured choices of kernels, before those that planish ships.
        toolchain: What links code for other machines than this one.

    Raises:
        OperatorError: A fallback with `strict`, or an operator that can't be compiled.
        OptionError: An unknown target or one twice, a bad option, or a batch that is not fixed.
        TargetError: No compiler to link with, or "native" on an unknown processor.
    """
    targets = find_targets(target)
    _check_options(graph, threads, io)
    for each in targets:
        _check_name(each)
    coverage = int8_coverage(graph).to_json()
    if strict and coverage["fallbacks"]:
        raise _fallback_error(graph, coverage["fallbacks"])
    interface = _Interface(graph, integer=io == "integer")
    plans = [
        Plan(each, _threads(each, threads), database=database, toolchain=toolchain)
        for each in targets
    ]
    built = [_build_one(graph, plan, interface) for plan in plans]
    tensors = joined_tensors(plans)
    manifest = {
        "inputs": interface.describe_inputs(),
        "outputs": interface.describe_outputs(),
        "structure": graph.structure,
        "threads": threads,
        "targets": [describe_target(plan.target) for plan in plans],
        "coverage": coverage,
        "history": [_history(entry) for entry in (graph.history if history is None else history)],
        "versions": {name: version(name) for name in ("apache-tvm", "apache-tvm-ffi", "torch")},
    }
    parts = {
        plan.target.name: (_describe_plan(plan, entry), library)
        for plan, (library, entry) in zip(plans, built, strict=True)
    }
    return Artifact(write_container(manifest, tensors, parts), elsewhere=True)


def _fallback_error(graph: Graph, fallbacks: list[dict[str, Any]]) -> FallbackError:
    """Return the error for operators that stay in float, which names the first."""
    first, count = fallbacks[0], len(fallbacks)
    reason = f"{first['operator']} ({first['reason']})"
    many = f"{count} operators stay in float, first {reason}"
    advice = "" if graph.level >= Level.INTEGER else "quantize the graph with insert-qdq, or "
    return FallbackError(
        many if count > 1 else f"1 operator stays in float: {reason}",
        where=first["node"],
        cure=f"{advice}compile with strict=False",
    )


def _check_name(target: Target) -> None:
    """Raise OptionError unless a target's name can be a folder of the artifact."""
    if not re.fullmatch(r"\w[\w.+-]*", target.name):
        raise OptionError(
            f"a target is named {target.name!r}", cure="use letters, digits and -, as in 'x86-mine'"
        )


def _threads(target: Target, threads: int) -> int:
    """Return the threads of the host that a target's kernels are laid out for."""
    return threads if target.capability is None else 1


def _build_one(graph: Graph, plan: Plan, interface: _Interface) -> tuple[bytes, dict[str, Any]]:
    """Fill an empty plan; return its library, and what the manifest says of how that is called."""
    inputs, outputs = _lower(graph, Lowering(graph, plan), interface)
    plan.workspace_bytes = place_values(plan)
    if plan.target.capability is not None:
        from .cuda.program import compile_program

        return compile_program(plan)
    module = emit_module(plan, inputs, outputs, plan.workspace_bytes)
    library = compile_library(module, plan.target, plan.toolchain)
    return library, {"entry": ENTRY, "needs_runtime": b"__TVMBackend" in library}


def joined_tensors(plans: list[Plan]) -> dict[str, NDArray[Any]]:
    """Return what the plans' recipes refer to, each tensor once.

    Weights are the same for every target. A table that a target made for itself gets the target's
    name where another target's differs.
    """
    joined: dict[str, NDArray[Any]] = {}
    for plan in plans:
        renamed: dict[str, str] = {}
        words = {word for recipe in plan.recipes for word in recipe.values() if type(word) is str}
        for name in sorted(words & plan.tensors.keys()):
            tensor = plan.tensors[name]
            if name in joined and not _same(joined[name], tensor):
                renamed[name] = f"{name}@{plan.target.name}"
            joined[renamed.get(name, name)] = tensor
        if renamed:
            plan.recipes = [
                {key: renamed.get(v, v) if type(v) is str else v for key, v in recipe.items()}
                for recipe in plan.recipes
            ]
    return joined


def _same(left: NDArray[Any], right: NDArray[Any]) -> bool:
    alike = left.dtype == right.dtype and left.shape == right.shape
    return alike and left.tobytes() == right.tobytes()


def _describe_plan(plan: Plan, entry: dict[str, Any]) -> dict[str, Any]:
    """Return what loading needs to run a target's library, and what it does."""
    return {
        **entry,
        "workspace_bytes": plan.workspace_bytes,
        "parameter_bytes": plan.parameter_bytes,
        "memory": describe_memory(plan),
        "recipes": plan.recipes,
        "steps": [{"kernel": s.kernel.name, "layer": s.label} for s in plan.steps],
        "choices": dict(sorted(Counter(choice.source for _, choice in plan.layers).items())),
    }


def fill_plan(graph: Graph, plan: Plan) -> tuple[list[Value], list[Value], int]:
    """Lower a graph with float inputs and outputs, as `build` does, for what runs its steps alone.

    Args:
        graph: As `build` takes it.
        plan: An empty plan.

    Returns:
        The entry's inputs and outputs, and the bytes of the workspace.
    """
    _check_options(graph, plan.threads, "float")
    interface = _Interface(graph, integer=False)
    inputs, outputs = _lower(graph, Lowering(graph, plan), interface)
    return inputs, outputs, place_values(plan)


def _check_options(graph: Graph, threads: int, io: str) -> None:
    if not 1 <= threads <= MOST_THREADS:
        raise OptionError(f"threads is {threads}, it must be from 1 to {MOST_THREADS}")
    if io not in ("float", "integer"):
        raise OptionError(f"io is {io!r}", cure="choose 'float' or 'integer'")
    if graph.level is Level.QUANTIZED:
        raise OptionError(
            "the graph is quantized, not integer", cure="run passes.LowerToInteger() first"
        )
    for node in graph.nodes:
        value = None if node.op == "get_attr" else node.meta.get("val")
        if getattr(value, "dtype", None) == torch.bfloat16:
            raise OperatorError(
                f"{node.name!r} is bfloat16, which no kernel computes",
                where=graph.origin(node).name or node.name,
                cure="convert the model with model.float() before it is captured",
            )
    for spec in graph.inputs:
        if None in spec.shape:
            raise OptionError(
                f"the batch size of input {spec.name!r} is open", cure="graph.fix_batch(n) fixes it"
            )


def _history(entry: HistoryEntry | dict[str, Any]) -> dict[str, Any]:
    """Return an entry without its time, which would make equal builds differ."""
    data = entry if isinstance(entry, dict) else asdict(entry)
    return {key: value for key, value in data.items() if key != "seconds"}


def _lower(
    graph: Graph, lowering: Lowering, interface: _Interface
) -> tuple[list[Value], list[Value]]:
    """Fill the plan; return the entry's inputs and outputs."""
    from .islands import find_islands

    islands = find_islands(graph, interface.skipped)
    inputs = [_argument(node, "input", i) for i, node in enumerate(interface.inputs)]
    lowering.values.update(zip(interface.inputs, inputs, strict=True))
    for node in graph.nodes:
        if node in islands:
            islands[node].lower(lowering)
        elif is_integer(node) and node not in interface.skipped:
            lowering.run(node)
    outputs = [_argument(node, "output", i) for i, node in enumerate(interface.outputs)]
    for node, output in zip(interface.outputs, outputs, strict=True):
        _return(lowering, node, output)
    return inputs, outputs


def _argument(node: torch.fx.Node, place: str, index: int) -> Value:
    sizes = tuple(int(size) for size in node.meta["val"].shape)
    layout = dense_layout(sizes, dtype_name(node.meta["val"].dtype))
    return Value(f"{place}{index}", layout, place, index, dense=True)


def _return(lowering: Lowering, node: torch.fx.Node, output: Value) -> None:
    """Let the kernel that makes a value write it to the user's memory, or copy it there."""
    value = stored_output(lowering, node) if node.op == "get_attr" else lowering.dense(node)
    if value.place == "workspace":
        value.place, value.index = "output", output.index
        return
    copy_into(lowering.plan, value, output, node.name)


class _Interface:
    """What the artifact takes and returns: the graph's own tensors, or quantized ones."""

    def __init__(self, graph: Graph, *, integer: bool) -> None:
        self._graph = graph
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        self._ends = {node: self._quantized_input(node) for node in placeholders} | {
            node: self._quantized_output(node) for node in graph.outputs
        }
        self.placeholders = placeholders
        swap = {n: e for n, e in self._ends.items() if e is not None} if integer else {}
        self.inputs = [swap[n][0] if n in swap else n for n in placeholders]
        self.outputs = [swap[n][0] if n in swap else n for n in graph.outputs]
        # Quantize nodes that the user does, and dequantize nodes that nobody else reads.
        self.skipped = {n for n in self.inputs if n.target is _QUANTIZE} | {
            n for n in graph.outputs if n in swap and len(n.users) == 1
        }

    @staticmethod
    def _quantized_input(node: torch.fx.Node) -> tuple[torch.fx.Node, dict[str, Any]] | None:
        users = list(node.users)
        if len(users) != 1 or users[0].target is not _QUANTIZE:
            return None
        values = arguments(users[0])
        return users[0], _scale_of(values, users[0])

    @staticmethod
    def _quantized_output(node: torch.fx.Node) -> tuple[torch.fx.Node, dict[str, Any]] | None:
        if node.target is not _DEQUANTIZE:
            return None
        values = arguments(node)
        return values["q"], _scale_of(values, values["q"])

    def describe_inputs(self) -> list[dict[str, Any]]:
        """Return the manifest's entry of each input."""
        names = [spec.name for spec in self._graph.inputs]
        return [
            self._describe(name, outer, used)
            for name, outer, used in zip(names, self.placeholders, self.inputs, strict=True)
        ]

    def describe_outputs(self) -> list[dict[str, Any]]:
        """Return the manifest's entry of each output."""
        count = len(self.outputs)
        known = self._graph.output_names
        # Teacher hooks add outputs that have no names of their own.
        names = known if known and len(known) == count else [f"output{i}" for i in range(count)]
        return [
            self._describe(name, outer, used)
            for name, outer, used in zip(names, self._graph.outputs, self.outputs, strict=True)
        ]

    def _describe(self, name: str, outer: torch.fx.Node, used: torch.fx.Node) -> dict[str, Any]:
        end = self._ends[outer]
        value = used.meta["val"]
        entry = {"name": name, "shape": [int(s) for s in value.shape]}
        return {**entry, "dtype": dtype_name(value.dtype), **(end[1] if end else {})}


def _scale_of(values: dict[str, Any], node: torch.fx.Node) -> dict[str, Any]:
    return {
        "scale": float(np.float32(values["scale"])),
        "zero_point": int(values["zero_point"]),
        "quantized_dtype": dtype_name(node.meta["val"].dtype),
    }

"""ONNX's own node tests through import and float execution: `python -m benchmarks.onnx_node_tests`.

Writes docs/onnx-operators.md: for each operator how many of the onnx package's cases pass, and why
the others are refused. A wrong answer, or an error that isn't planish's own, fails the command.

Many cases give as an input what a model stores: a shape, axes, a repeat count. Where planish must
know such an input at import, the case is run again with it fixed (`import_onnx(constants=...)`).
"""

from __future__ import annotations

import enum
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import torch
import typer
from onnx import numpy_helper
from rich.console import Console
from rich.progress import track

from planish.ir.errors import PlanishError
from planish.ir.files import write_beside
from planish.ir.graph import Graph
from planish.onnx_import import NeedsConstantError, import_onnx
from planish.onnx_import.tensors import tensor_from_proto
from planish.passes import Canonicalize, Context


class Outcome(enum.Enum):
    """What became of one case."""

    PASSED = "passed"
    FIXED = "passed, some inputs fixed"
    REFUSED = "refused"
    WRONG = "wrong answer"
    BROKEN = "error that is not planish's"


@dataclass(frozen=True)
class Result:
    """One case: its name, operator, outcome, and the reason where it did not pass."""

    case: str
    operator: str
    outcome: Outcome
    reason: str = ""


def cases() -> list[Any]:
    """Return the onnx package's node test cases."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(collect_testcases(None))


def operator_of(case: Any) -> str:
    """Return the operator that a case is about; an expanded case is about its function."""
    domains = [f"{node.domain}." for node in case.model.graph.node if node.domain]
    name = case.model.graph.node[0].op_type
    return f"{domains[0]}{name}" if domains and len(case.model.graph.node) == 1 else name


def run_case(case: Any, operator: str) -> Result:
    """Import one case, run it, and compare."""
    try:
        outcomes = [_run(case.model, inputs, expected, case) for inputs, expected in case.data_sets]
    except PlanishError as error:
        return Result(case.name, operator, Outcome.REFUSED, error.what)
    except Exception as error:  # noqa: BLE001  what is not planish's own is what is looked for
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"
        return Result(case.name, operator, Outcome.BROKEN, reason)
    wrong = next((reason for _, reason in outcomes if reason), None)
    if wrong is not None:
        return Result(case.name, operator, Outcome.WRONG, wrong)
    fixed = any(fixed for fixed, _ in outcomes)
    return Result(case.name, operator, Outcome.FIXED if fixed else Outcome.PASSED)


def _run(model: onnx.ModelProto, inputs: Any, expected: Any, case: Any) -> tuple[bool, str]:
    """Return whether inputs had to be fixed, and what is wrong with the answer."""
    names = [value.name for value in model.graph.input]
    given = {n: _tensor(v) for n, v in zip(names, inputs, strict=False)}
    shapes = {n: v.shape for n, v in given.items() if isinstance(v, torch.Tensor)}
    graph, constants = _import(model, given, shapes)
    left = [n for n in names if n in given and n not in constants]
    outputs = graph(*(given[n] for n in left))
    found = outputs if isinstance(outputs, tuple | list) else [outputs]
    if len(found) != len(expected):
        return bool(constants), f"{len(found)} outputs, not {len(expected)}"
    for value, wanted in zip(found, expected, strict=True):
        reason = _difference(value, _tensor(wanted), case.rtol, case.atol)
        if reason:
            return bool(constants), reason
    return bool(constants), ""


def _import(
    model: onnx.ModelProto, given: dict[str, Any], shapes: dict[str, Any]
) -> tuple[Graph, dict[str, Any]]:
    """Import with every input open to change; what must be known at import is fixed."""
    constants: dict[str, Any] = {}
    while True:
        try:
            return _canonical(import_onnx(model, shapes, constants=constants)), constants
        except NeedsConstantError as error:
            fresh = {name: given[name] for name in error.inputs}
            if not fresh or fresh.keys() <= constants.keys():
                raise
            constants |= fresh


def _canonical(graph: Graph) -> Graph:
    return Canonicalize().run(graph, Context()).graph


def _tensor(value: Any) -> Any:
    """Return an array as a tensor; what torch has no type for, and sequences, as they are."""
    if isinstance(value, list | dict) or value is None:
        return value
    proto = value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(value)
    try:
        return tensor_from_proto(proto, "a value of the case", None)
    except PlanishError:
        return value


def _difference(value: Any, wanted: Any, rtol: float, atol: float) -> str:
    """Return what is wrong with one output, or nothing."""
    if not isinstance(wanted, torch.Tensor):
        return f"a tensor where a {type(wanted).__name__} is expected"
    if value.shape != wanted.shape:
        return f"shape {list(value.shape)}, not {list(wanted.shape)}"
    if value.dtype != wanted.dtype:
        return f"dtype {value.dtype}, not {wanted.dtype}"
    if value.dtype in (torch.bfloat16, torch.float16):
        # Four steps of such a type: sums in another order differ by one or two.
        rtol = max(rtol, 4 * torch.finfo(value.dtype).eps / 2)
    found, right = (v.detach().to(torch.float64).numpy() for v in (value, wanted))
    if not np.allclose(found, right, rtol=rtol, atol=atol, equal_nan=True):
        return "values differ"
    return ""


def page(results: list[Result]) -> str:
    """Return docs/onnx-operators.md."""
    counts = Counter(result.outcome for result in results)
    passed = counts[Outcome.PASSED] + counts[Outcome.FIXED]
    lines = [
        "# ONNX operators",
        "",
        f"The node tests of onnx {onnx.__version__}, imported and run in float. Made by",
        "`python -m benchmarks.onnx_node_tests`.",
        "",
        f"**{passed} of {len(results)} pass** ({counts[Outcome.FIXED]} of them with inputs such as",
        f"shapes or axes fixed at import), {counts[Outcome.REFUSED]} are refused with a reason,",
        f"{counts[Outcome.WRONG]} give a wrong answer, {counts[Outcome.BROKEN]} break.",
        "",
        "| operator | cases | pass | refused | reason of the first refusal |",
        "|---|---|---|---|---|",
    ]
    for operator, found in _by_operator(results):
        good = sum(r.outcome in (Outcome.PASSED, Outcome.FIXED) for r in found)
        bad = [r for r in found if r.outcome not in (Outcome.PASSED, Outcome.FIXED)]
        reason = bad[0].reason.replace("|", "\\|").replace("\n", " ") if bad else ""
        lines.append(f"| {operator} | {len(found)} | {good} | {len(bad)} | {reason[:160]} |")
    return "\n".join(lines) + "\n"


def _by_operator(results: list[Result]) -> Iterator[tuple[str, list[Result]]]:
    for operator in sorted({result.operator for result in results}):
        yield operator, [result for result in results if result.operator == operator]


def main(
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/onnx-operators.md"),
    only: Annotated[str, typer.Option(help="Cases whose name holds this; writes nothing.")] = "",
    show: Annotated[bool, typer.Option(help="List what did not pass.")] = False,
) -> None:
    """Run the cases and write the page."""
    console = Console(stderr=True)
    torch.set_num_threads(1)
    began = time.perf_counter()
    chosen = [case for case in cases() if only in case.name]
    whole = {case.name: operator_of(case) for case in chosen}
    results = [
        run_case(case, whole.get(case.name.split("_expanded")[0], whole[case.name]))
        for case in track(chosen, "node tests", console=console)
    ]
    for result in results:
        bad = result.outcome in (Outcome.WRONG, Outcome.BROKEN)
        if bad or (show and result.outcome is Outcome.REFUSED):
            console.print(
                f"{result.outcome.value}: {result.case}: {result.reason}", highlight=False
            )
    for outcome, count in Counter(result.outcome for result in results).items():
        console.print(f"{count:5d} {outcome.value}")
    console.print(f"{time.perf_counter() - began:.0f} s")
    if not only:
        write_beside(out, page(results).encode())
    failed = any(result.outcome in (Outcome.WRONG, Outcome.BROKEN) for result in results)
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)

"""The onnx package's own node tests: a sample always, all of them when asked (make sweep)."""

from typing import Any

import pytest

from benchmarks.onnx_node_tests import Outcome, Result, cases, operator_of, run_case

GOOD = (Outcome.PASSED, Outcome.FIXED)


def run(chosen: list[Any]) -> list[Result]:
    return [run_case(case, operator_of(case)) for case in chosen]


def faults(results: list[Result]) -> list[Result]:
    return [r for r in results if r.outcome in (Outcome.WRONG, Outcome.BROKEN)]


def test_a_sample_of_the_node_tests() -> None:
    results = run([case for case in cases() if "attention" not in case.name][::16])
    assert faults(results) == []
    assert sum(r.outcome in GOOD for r in results) >= 60
    assert all(r.reason for r in results if r.outcome is Outcome.REFUSED)


@pytest.mark.sweep
def test_all_node_tests() -> None:
    results = run(cases())
    assert faults(results) == []
    assert sum(r.outcome in GOOD for r in results) >= 1400

"""docs/operators.md says what the operator table says."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "operator_table.py"))
    cure = "make it anew: python -m benchmarks.operator_table"
    assert made["PAGE"].read_text() == made["page"](), cure

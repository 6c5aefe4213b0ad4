"""`make bench` measures and writes what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_measures_planish_beside_other_runtimes(tmp_path: Path) -> None:
    output = tmp_path / "new" / "results.json"
    done = bench("--only", "perceptron", "--runs", "3", "--output", str(output))
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())
    names = [row["runtime"] for row in rows]
    assert names == ["planish int8", "ONNX Runtime fp32", "ONNX Runtime int8"]
    assert all(row["min_ms"] > 0 and row["bytes"] > 0 for row in rows)


def test_unknown_network_names_the_known() -> None:
    done = bench("--only", "perceptrun")
    assert done.returncode == 2
    assert "unknown network 'perceptrun'; did you mean 'perceptron'?" in done.stderr

"""Damaged and hostile files: an error of planish's or a graph, never anything else."""

import random
from pathlib import Path

import pytest

from benchmarks.hostile_onnx import Importer, mutate, seeds, try_import


def test_a_sample_of_mutations(tmp_path: Path) -> None:
    models = seeds()
    path = tmp_path / "mutant.onnx"
    bad = []
    for index in range(120):
        path.write_bytes(mutate(models[index % len(models)], random.Random(f"t/{index}")))
        outcome, text = try_import(path)
        if outcome not in ("refused", "imported"):
            bad.append((index, outcome, text))
    assert bad == []


@pytest.mark.sweep
def test_two_thousand_mutations_under_limits(tmp_path: Path) -> None:
    models, importer = seeds(), Importer(tmp_path)
    path = tmp_path / "mutant.onnx"
    bad = []
    for index in range(2000):
        path.write_bytes(mutate(models[index % len(models)], random.Random(f"0/{index}")))
        outcome, text, _ = importer(path)
        if outcome not in ("refused", "imported"):
            bad.append((index, outcome, text))
    assert bad == []

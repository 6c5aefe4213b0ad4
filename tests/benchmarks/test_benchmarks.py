"""`make bench` measures in processes of their own, and makes a page of what it measured."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planish.backends.cuda.driver import Facts
from planish.ir.errors import DataError

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of the package

from benchmarks.cuda import Contest, read_prepared  # noqa: E402
from benchmarks.networks import GROUPS, Network  # noqa: E402
from benchmarks.page import PAGE, put_section, write_page  # noqa: E402
from benchmarks.plot import draw  # noqa: E402
from benchmarks.results import beside_ratio, missing, peer_ratio, speed_up  # noqa: E402


def bench(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *options]
    # Results go to build/ of the folder where it runs.
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_measures_planish_beside_other_runtimes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    done = bench(tmp_path, "--only", "perceptron", "--runs", "3", "--target", "x86-64-v3")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "build" / "bench"
    found = json.loads((folder / "x86-64-v3.json").read_text())
    (row,) = found["networks"]
    names = [(r["runtime"], r["threads"]) for r in row["results"]]
    runtimes = ("planish", "ONNX Runtime", "OpenVINO")
    assert names == [(name, count) for count in (1, 2) for name in runtimes]
    assert row["profile"]["macs"] == row["int8_bytes"] == 784 * 512 + 512 * 512 + 512 * 10
    assert {path.name for path in folder.iterdir()} >= {"README.md", "x86-64-v3.svg"}


def test_unknown_network_names_the_known(tmp_path: Path) -> None:
    done = bench(tmp_path, "--only", "perceptrun")
    assert done.returncode == 2
    assert "unknown network 'perceptrun'; did you mean 'perceptron'?" in done.stderr


def test_networks_have_names_and_files_of_their_own() -> None:
    networks: list[Network] = [network for group in GROUPS for network in group]
    assert len({network.name for network in networks}) == len(networks)
    assert len({network.file(8) for network in networks}) == len(networks)


def result(runtime: str, threads: int, minimum: float) -> dict[str, Any]:
    facts = {"bytes": 1_500_000, "compile_s": 2.0, "load_s": 0.1}
    times = {"min_ms": minimum, "median_ms": minimum * 1.1, "runs": 30}
    apart = {"memory": {"activations": 500_000}} if runtime == "planish" else {"steps_apart": 1.0}
    return {"runtime": runtime, "threads": threads, **times, **facts, **apart}


@pytest.fixture
def found() -> dict[str, Any]:
    whole = [result("planish", 1, 4.0), result("OpenVINO", 1, 5.0), result("ONNX Runtime", 1, 8.0)]
    half = [result("planish", 1, 2.0), result("planish", 2, 1.0)]
    absent = {"runtime": "OpenVINO", "threads": 1, "reason": "OpenVINO is not installed"}
    shared = {"int8_bytes": 1_000_000, "goal": 0.8}
    first = {"network": "net", "beside": None, "results": whole, "not_measured": [], **shared}
    second = {"network": "half", "beside": "net", "results": half, "not_measured": [absent]}
    kind = {"family": "direct", "kind": "3x3", "calls": 2, "microseconds": 3900.0}
    speed = {"gmacs": 400.0, "peak_share": 0.8}
    first["profile"] = {
        "instruction": "vpdpbusd",
        "vector_bits": 512,
        "peak": 500.0,
        "sum": 4000.0,
        "kinds": [kind | speed],
    }
    third = {"network": "other", "reason": "torchvision is not installed"}
    facts = {"processor": "CPU", "versions": {"planish": "1"}, "target": "native", "isa": None}
    return {**facts, "date": "2026-01-01", "networks": [first, second | shared, third]}


def test_ratios(found: dict[str, Any]) -> None:
    first, second, _ = found["networks"]
    assert peer_ratio(first, 1) == 0.8
    assert (peer_ratio(second, 1), peer_ratio(first, 2)) == (None, None)
    assert beside_ratio(found, second, 1) == 0.5
    assert beside_ratio(found, first, 1) is None
    assert (speed_up(second, 2), speed_up(first, 2)) == (2.0, None)
    assert missing(found) == [
        "other: torchvision is not installed",
        "half, OpenVINO: OpenVINO is not installed",
    ]
    first["not_measured"] = second["not_measured"]
    assert missing(found)[1:] == ["OpenVINO: OpenVINO is not installed"]


def test_the_page(found: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "native.json").write_text(json.dumps(found))
    assert [path.name for path in write_page(tmp_path)] == ["README.md", "native.svg"]
    text = (tmp_path / "README.md").read_text()
    assert "| net | 1 | 4.000 (4.400) | 8.000 (8.800) | 5.000 (5.500) | 0.80 |" in text
    assert "half: 0.50 of the time of net on 1 thread(s)" in text
    assert "| net | 2.0 | 0.10 | 1.50 | 1.00 | 0.50 |" in text
    assert "| net | direct | 3x3 | 2 | 3900 | 97.5% | 400 | 80% |" in text
    assert "<!-- begin avx2 results -->\n<!-- end avx2 results -->\n" in text


def test_every_section_of_the_page_is_filled(found: dict[str, Any], tmp_path: Path) -> None:
    for name in ("native", "avx2"):
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    text = write_page(tmp_path)[0].read_text()
    assert PAGE.read_text().count("<!-- begin") == text.count("<!-- begin") == 9
    assert "-->\n<!-- end" not in text


def test_sections_are_exchanged_and_all_else_stays() -> None:
    page = (
        "by hand\n<!-- begin a b -->\nold\n<!-- end a b -->\n<!-- begin a c -->\n<!-- end a c -->\n"
    )
    filled = put_section(page, "a c", "new\n")
    assert filled == page.replace("begin a c -->\n", "begin a c -->\nnew\n")
    assert put_section(filled, "[^>]*", "") == page.replace("old\n", "")
    assert put_section("no markers\n", "a b", "new\n") == "no markers\n"


def test_the_picture_shows_every_result(found: dict[str, Any]) -> None:
    picture = draw(found)
    words = [str(each.text) for each in ElementTree.fromstring(picture).iter() if each.text]
    for part in ("net", "1 thread", "4 ms", "8 ms", "planish", "OpenVINO"):
        assert any(part in word for word in words)
    assert draw(found) == picture


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"batches": {}, "target": "", "onnx": ""}'])
def test_a_gpu_measures_only_what_is_prepared(text: str, tmp_path: Path) -> None:
    if text:
        (tmp_path / "resnet-50.json").write_text(text)
    with pytest.raises(DataError, match=r"make it: python -m benchmarks.cuda_artifacts"):
        read_prepared(tmp_path)


def test_the_limit_of_a_gpu() -> None:
    facts = Facts("a GPU", (8, 0), 100, 1e9, 1e12)
    # 2048 products a clock on each of 100 multiprocessors, and 1 TB/s.
    work = [(2048 * 100 * 1_000_000, 1), (1, 3_000_000_000)]
    assert Contest(1, work, {}, {}).limit(facts) == pytest.approx(1 + 3)
    assert Contest(1, work, {}, {}).limit(replace(facts, capability=(9, 9))) is None

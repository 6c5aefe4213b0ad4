"""The report: what is in it, and that its page needs nothing from outside."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from planish import Graph, Pipeline, Report, passes
from planish.ir import DataError, OptionError, PlanishError
from planish.report import Peer, Stage, Verdict

KEYS = {
    "stages",
    "int8_mac_coverage",
    "reference_mismatches",
    "fallbacks",
    "peers",
    "history",
    "versions",
    "seed",
}
STAGE_KEYS = {"name", "accuracy", "parameters", "macs", "bytes", "latency_ms"}


@pytest.fixture
def report(graph: Graph, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> Report:
    """A report with everything in it."""
    steps = [passes.FoldBatchNorm(), passes.InsertQDQ(skip=("head",)), passes.LowerToInteger()]
    found = Pipeline(steps).run(graph, batches, validation=batches, target="x86-64-v3").report
    last = found.stages[-1]
    found.title = "a <small> network"
    found.stages.append(
        Stage("compiled", "compiled", last.parameters, last.macs, 9000, 0.2, 0.03, 0.02, "planish")
    )
    found.peers = [
        Peer("ONNX Runtime fp32", "teacher", 0.1, 0.09, 50, 0.21, 40_000),
        Peer("Other", "teacher", reason="not <installed>"),
    ]
    found.verdicts = [
        Verdict("speed", "faster", "3 times", True),
        Verdict("size", "1/7", "1/6", False),
    ]
    found.reference_mismatches = 0
    return found


def test_json_has_what_is_promised(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text())
    assert data.keys() >= KEYS
    assert all(stage.keys() >= STAGE_KEYS for stage in data["stages"])
    assert data["target"] == "x86-64-v3"
    assert data["versions"].keys() >= {"planish", "python", "torch", "apache-tvm", "numpy"}


def test_fallbacks_have_reasons(report: Report) -> None:
    assert report.int8_mac_coverage is not None
    assert 0.99 < report.int8_mac_coverage < 1
    (fallback,) = report.fallbacks
    assert (fallback["node"], fallback["operator"]) == ("head", "linear")
    assert fallback["macs"] == 160
    assert "skip" in fallback["reason"]
    assert ("insert-qdq", "head") in [(name, item.node) for name, item in report.refusals]


def test_json_round_trip(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "report.json")
    again = Report.load(tmp_path / "report.json")
    assert json.dumps(again.to_json()) == json.dumps(report.to_json())


@pytest.mark.parametrize("content", ["", "{}", "[]", "3", '{"format": 99}', '{"format": 1}'])
def test_what_is_no_report(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(DataError, match="report"):
        Report.load(tmp_path / "report.json")


def test_no_report_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't read the report"):
        Report.load(tmp_path / "report.json")


class _Tags(HTMLParser):
    """Collects open tags, and addresses of resources."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "rect", "circle", "line", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.seen.add(tag)


def test_the_page_stands_alone(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.addresses == []
    assert tags.seen.isdisjoint({"script", "link", "img", "iframe"})
    assert tags.seen >= {"svg", "table", "style"}
    assert "url(" not in text
    outside = set(re.findall(r"https?://[^\"' ]+", text)) - {"http://www.w3.org/2000/svg"}
    assert outside == set()


def test_the_page_says_it_all(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "a &lt;small&gt; network" in text
    assert "not &lt;installed&gt;" in text
    assert "prefers-color-scheme: dark" in text
    for part in (
        "insert-qdq",
        "fold-batch-norm",
        "1 of 2 promises kept",
        "Accuracy against latency",
    ):
        assert part in text
    for stage in report.stages:
        assert stage.name in text


def test_an_empty_report_is_a_page(tmp_path: Path) -> None:
    Report().save(tmp_path / "report.html")
    assert "<h1>compression</h1>" in (tmp_path / "report.html").read_text()


def test_without_latencies_size_is_drawn(report: Report, tmp_path: Path) -> None:
    report.peers, report.stages = [], report.stages[:-1]
    report.save(tmp_path / "report.html")
    assert "Accuracy against size" in (tmp_path / "report.html").read_text()


def test_other_endings(report: Report, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"end the name in \.json or \.html"):
        report.save(tmp_path / "report.pdf")


def test_no_folder(report: Report, tmp_path: Path) -> None:
    with pytest.raises(PlanishError, match=r"can't write report\.html"):
        report.save(tmp_path / "nowhere" / "report.html")

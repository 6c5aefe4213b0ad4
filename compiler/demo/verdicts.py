"""The demo's promises, held against what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from ..report import Peer, Report, Verdict


@dataclass(frozen=True)
class Findings:
    """What the verdicts need beside the report.

    Attributes:
        images: How many test images there were.
        answers_changed: On how many of them the compiled network and the fake-quantized graph
            answer differently.
        onnx_bytes: Size of the teacher's fp32 ONNX file, or None without it.
    """

    images: int
    answers_changed: int
    onnx_bytes: int | None


def verdicts(report: Report, findings: Findings) -> list[Verdict]:
    """Return one verdict a promise; one that couldn't be measured counts as not kept."""
    first, last = report.stages[0], report.stages[-1]
    before, after = first.accuracy or 0.0, last.accuracy or 0.0
    share = last.macs / first.macs
    coverage = report.int8_mac_coverage or 0.0
    return [
        Verdict("teacher's accuracy", "93 % or better", f"{before:.2%}", before >= 0.93),
        Verdict(
            "accuracy of the compiled network",
            "at most 0.5 points below the teacher",
            f"{after:.2%} ({(after - before) * 100:+.2f} points)",
            after >= before - 0.005,
        ),
        Verdict("multiply-accumulates left", "at most 50 %", f"{share:.1%}", share <= 0.5),
        _size(last.bytes, findings.onnx_bytes),
        Verdict("multiply-accumulates in int8", "100 %", f"{coverage:.2%}", coverage == 1),
        Verdict(
            "images on which compiled and reference bits differ",
            f"0 of {findings.images:,}",
            str(report.reference_mismatches),
            report.reference_mismatches == 0,
        ),
        Verdict(
            "answers that differ from the fake-quantized graph",
            "at most 5",
            str(findings.answers_changed),
            findings.answers_changed <= 5,
        ),
        _speed(report, "ONNX Runtime fp32", "teacher", 4.0),
        _speed(report, "ONNX Runtime int8", "pruned, static QDQ", 1.0),
    ]


def _size(nbytes: int, onnx_bytes: int | None) -> Verdict:
    name, wanted = "artifact against the teacher's fp32 ONNX file", "at most 1/7"
    if onnx_bytes is None:
        return Verdict(name, wanted, "not measured", passed=False)
    return Verdict(name, wanted, f"1/{onnx_bytes / nbytes:.1f}", nbytes * 7 <= onnx_bytes)


def _speed(report: Report, runtime: str, model: str, factor: float) -> Verdict:
    name = f"latency against {runtime}, {model}"
    wanted = f"{factor:g} times faster or more" if factor > 1 else "faster"
    peer = _find(report, runtime, model)
    own = report.stages[-1].latency_ms
    if peer is None or peer.latency_ms is None or own is None:
        reason = peer.reason if peer is not None else "not measured"
        return Verdict(name, wanted, str(reason), passed=False)
    ratio = peer.latency_ms / own
    return Verdict(name, wanted, f"{ratio:.2f} times", ratio >= factor and ratio > 1)


def _find(report: Report, runtime: str, model: str) -> Peer | None:
    found = (peer for peer in report.peers if (peer.name, peer.model) == (runtime, model))
    return next(found, None)

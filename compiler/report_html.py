"""The report as one HTML page: tables, drawings and style in one file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from .report import Peer, Report, Stage
from .report_charts import Point, layer_widths, trade_off
from .report_style import STYLE

NOTHING = "–"  # noqa: RUF001


def page(report: Report) -> str:
    """Return the whole page."""
    sections = [
        _head(report),
        _tiles(report),
        _verdicts(report),
        _trade_off(report),
        _stages(report),
        _layers(report),
        _peers(report),
        _coverage(report),
        _refusals(report),
        _history(report),
        _versions(report),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)} · planish</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    facts = [("target", report.target), ("processor", report.processor), ("seed", report.seed)]
    facts += list(report.notes.items())
    shown = "".join(
        f"<span>{escape(str(name))}: {escape(str(value))}</span>"
        for name, value in facts
        if value is not None
    )
    return (
        f'<div class="brand">planish</div>\n<h1>{escape(report.title)}</h1>\n'
        f'<div class="facts">{shown}</div>'
    )


def _tiles(report: Report) -> str:
    """Return the four or five numbers that a reader looks for first."""
    if len(report.stages) < 2:
        return ""
    first, last = report.stages[0], report.stages[-1]
    tiles: list[tuple[str, str, str]] = []
    if first.accuracy is not None and last.accuracy is not None:
        points = (last.accuracy - first.accuracy) * 100
        tiles.append(
            (f"{last.accuracy:.2%}", "accuracy", f"{points:+.2f} points from {first.accuracy:.2%}")
        )
    if first.latency_ms and last.latency_ms:
        tiles.append(
            (
                f"{last.latency_ms * 1000:.1f} µs",
                "one sample, one thread",
                f"{first.latency_ms / last.latency_ms:.1f} times faster than {first.runtime}",
            )
        )
    tiles.append(_ratio_tile("MACs", first.macs, last.macs, _count))
    tiles.append(_ratio_tile("size", first.bytes, last.bytes, _bytes))
    if report.int8_mac_coverage is not None:
        rest = f"{len(report.fallbacks)} operators in float" if report.fallbacks else "no fallbacks"
        tiles.append((_percent(report.int8_mac_coverage), "of the MACs in int8", rest))
    if report.reference_mismatches is not None:
        tiles.append(
            (f"{report.reference_mismatches}", "mismatches", "compiled against the reference, bits")
        )
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span>'
        f'<span class="soft">{escape(note)}</span></div>'
        for value, name, note in tiles
    )
    return f'<div class="tiles">{shown}</div>'


def _ratio_tile(name: str, old: float, new: float, show: Any) -> tuple[str, str, str]:
    share = new / old if old else 1.0
    value = f"1/{1 / share:.1f}" if 0 < share < 0.4 else f"{share:.0%}"
    return value, f"of the {name}", f"{show(old)} → {show(new)}"


def _percent(share: float) -> str:
    """Return "100 %" for the whole only, never by rounding."""
    return "100 %" if share == 1 else f"{min(share * 100, 99.99):.4g} %"


def _verdicts(report: Report) -> str:
    if not report.verdicts:
        return ""
    rows = [
        [
            _mark(v.passed),
            escape(v.name),
            escape(v.wanted),
            f"<b>{escape(v.found)}</b>",
        ]
        for v in report.verdicts
    ]
    kept = sum(verdict.passed for verdict in report.verdicts)
    return _section(
        f"{kept} of {len(report.verdicts)} promises kept",
        _table(["", "promise", "wanted", "found"], rows),
    )


def _mark(passed: bool) -> str:
    kind, sign = ("pass", "✓") if passed else ("fail", "✗")
    return f'<span class="mark {kind}">{sign}</span>'


def _trade_off(report: Report) -> str:
    """Draw accuracy against latency where it was measured, else against size."""
    timed = [
        Point(f"planish {s.name}", s.latency_ms, s.accuracy, s.bytes, ours=True)
        for s in report.stages
        if s.latency_ms is not None and s.accuracy is not None and s.level == "compiled"
    ]
    timed += [
        Point(f"{p.name}, {p.model}", p.latency_ms, p.accuracy, p.bytes, ours=False)
        for p in report.peers
        if p.latency_ms is not None and p.accuracy is not None
    ]
    reference = report.stages[0].accuracy if report.stages else None
    if timed:
        drawing = trade_off(timed, "milliseconds for one sample, one thread", reference)
        note = "Up and to the left is better. The area of a mark is the size of the model's file."
        return _figure("Accuracy against latency", drawing, note)
    sized = [
        Point(s.name, s.bytes / 1e6, s.accuracy, s.bytes, ours=index > 0)
        for index, s in enumerate(report.stages)
        if s.accuracy is not None
    ]
    if len(sized) < 2:
        return ""
    drawing = trade_off(sized, "megabytes of stored tensors", reference)
    return _figure("Accuracy against size", drawing, "Up and to the left is better.")


def _stages(report: Report) -> str:
    if not report.stages:
        return ""
    first = report.stages[0]
    rows = [_stage_row(stage, first) for stage in report.stages]
    names = ["stage", "level", "#accuracy", "#parameters", "#MACs", "#size", "#latency", "#took"]
    return _section(
        "Stages", _table(names, rows), "Bars show what is left of the first stage's amount."
    )


def _stage_row(stage: Stage, first: Stage) -> list[str]:
    latency = NOTHING
    if stage.latency_ms is not None:
        latency = f"{stage.latency_ms:.3f} ms"
        if stage.runtime:
            latency += f'<br><span class="soft">{escape(stage.runtime)}</span>'
    return [
        f"!{escape(stage.name)}",
        f'<span class="soft">{escape(stage.level)}</span>',
        NOTHING if stage.accuracy is None else f"{stage.accuracy:.2%}",
        _barred(f"{stage.parameters:,}", stage.parameters, first.parameters),
        _barred(_count(stage.macs), stage.macs, first.macs),
        _barred(_bytes(stage.bytes), stage.bytes, first.bytes),
        latency,
        f"{stage.seconds:.1f} s" if stage.seconds >= 0.05 else "",
    ]


def _barred(text: str, value: float, whole: float) -> str:
    share = min(value / whole, 1.0) if whole else 0.0
    return f'{text}<i class="bar" style="width:{share * 100:.1f}%"></i>'


def _layers(report: Report) -> str:
    if not report.layers_before:
        return ""
    drawing = layer_widths(report.layers_before, report.layers_after)
    note = "Wide bars: as the model came. Narrow bars: as it left."
    return _figure("Layers, before and after", drawing, note)


def _peers(report: Report) -> str:
    if not report.peers:
        return ""
    names = ["runtime", "model", "#median", "#fastest", "#runs", "#accuracy", "#size"]
    return _section(
        "Other runtimes",
        _table(names, [_peer_row(peer) for peer in report.peers]),
        "Measured in turns with the compiled model in the same run: one sample, one thread.",
    )


def _peer_row(peer: Peer) -> list[str]:
    if peer.latency_ms is None:
        reason = f'<span class="soft">not measured: {escape(peer.reason or "")}</span>'
        return [f"!{escape(peer.name)}", escape(peer.model), reason, "", "", "", ""]
    return [
        f"!{escape(peer.name)}",
        escape(peer.model),
        f"{peer.latency_ms:.3f} ms",
        NOTHING if peer.latency_min_ms is None else f"{peer.latency_min_ms:.3f} ms",
        f"{peer.runs:,}",
        NOTHING if peer.accuracy is None else f"{peer.accuracy:.2%}",
        NOTHING if peer.bytes is None else _bytes(peer.bytes),
    ]


def _coverage(report: Report) -> str:
    if report.int8_mac_coverage is None:
        return ""
    share = report.int8_mac_coverage
    meter = f'<div class="meter"><i style="width:{share * 100:.2f}%"></i></div>'
    text = f"<p>{share:.2%} of the multiply-accumulates are computed in int8.</p>"
    if not report.fallbacks:
        return _section("int8 coverage", f"{text}{meter}<p>No operator falls back to float.</p>")
    rows = [
        [
            f"!{escape(item['operator'])}",
            escape(item["node"]),
            _count(item.get("macs", 0)),
            escape(item["reason"]),
        ]
        for item in report.fallbacks
    ]
    table = _table(["stays in float", "layer", "#MACs", "reason"], rows)
    return _section("int8 coverage", text + meter + table)


def _refusals(report: Report) -> str:
    if not report.refusals:
        return ""
    rows = [
        [f"!{escape(name)}", escape(item.node), escape(item.reason)]
        for name, item in report.refusals
    ]
    return _section("Left alone", _table(["pass", "layer", "reason"], rows))


def _history(report: Report) -> str:
    if not report.history:
        return ""
    parts: list[str] = []
    for position, entry in enumerate(report.history, 1):
        options = ", ".join(f"{name}={value!r}" for name, value in entry.options.items())
        changed = "" if entry.changed else " · changed nothing"
        notes = json.dumps(entry.notes, indent=1) if entry.notes else "no notes"
        parts.append(
            f"<details><summary><b>{position}. {escape(entry.name)}</b>"
            f'<span class="soft">{escape(options)} · {entry.seconds:.1f} s{changed}</span>'
            "</summary>"
            f"<pre>{escape(_clipped(notes))}</pre></details>"
        )
    return _section("Passes", "".join(parts))


def _clipped(text: str, limit: int = 6000) -> str:
    return text if len(text) <= limit else f"{text[:limit]}\n… (all of it in report.json)"


def _versions(report: Report) -> str:
    rows = [[f"!{escape(name)}", escape(value)] for name, value in report.versions.items()]
    return _section("Made with", _table(["package", "version"], rows))


def _section(title: str, content: str, note: str = "") -> str:
    below = f'<p class="soft">{escape(note)}</p>' if note else ""
    return f'<h2>{escape(title)}</h2>\n{below}<div class="card">{content}</div>'


def _figure(title: str, drawing: str, note: str) -> str:
    return (
        f'<h2>{escape(title)}</h2>\n<figure class="card">{drawing}'
        f"<figcaption>{escape(note)}</figcaption></figure>"
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; "#" before a name marks numbers, "!" before a cell the row's name."""
    numeric = [name.startswith("#") for name in names]
    head = "".join(
        f'<th class="{"n" if right else ""}">{escape(name.removeprefix("#"))}</th>'
        for name, right in zip(names, numeric, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(map(_cell, row, numeric)) + "</tr>" for row in (list(r) for r in rows)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(content: str, right: bool) -> str:
    if content.startswith("!"):
        return f'<td class="name">{content[1:]}</td>'
    return f'<td class="{"n" if right else ""}">{content}</td>'


def _count(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:g}"


def _bytes(value: float) -> str:
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:g} B"

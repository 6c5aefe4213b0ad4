"""Tables that several commands print."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from ..report import Report, Stage
from .console import bytes_text, count_text, plain_table

NOTHING = "–"  # noqa: RUF001


def stage_table(report: Report) -> Table:
    """Return the stages with what each has gained and lost; best values stand out."""
    table = plain_table("stage")
    for name in ("accuracy", "parameters", "MACs", "size", "latency", "took"):
        table.add_column(name, justify="right")
    first = report.stages[0] if report.stages else None
    for stage in report.stages:
        table.add_row(*_stage_row(stage, first))
    return table


def _stage_row(stage: Stage, first: Stage | None) -> list[str]:
    shrunk = first is not None and stage.macs < first.macs
    share = f" [green]{stage.macs / first.macs:.0%}[/green]" if shrunk and first else ""
    return [
        stage.name,
        NOTHING if stage.accuracy is None else f"{stage.accuracy:.2%}",
        count_text(stage.parameters),
        count_text(stage.macs) + share,
        bytes_text(stage.bytes),
        NOTHING if stage.latency_ms is None else f"{stage.latency_ms:.3f} ms",
        f"{stage.seconds:.1f} s" if stage.seconds >= 0.05 else "",
    ]


def refusal_table(report: Report) -> Table:
    """Return what the passes left alone, with the reasons."""
    table = plain_table("pass", "layer", "reason")
    table.title, table.title_justify = "left alone", "left"
    for pass_name, item in report.refusals:
        table.add_row(pass_name, escape(item.node), escape(item.reason))
    return table


def peer_table(report: Report) -> Table:
    """Return the other runtimes, measured in the same run."""
    table = plain_table("runtime", "model")
    for name in ("median", "fastest", "runs", "accuracy", "size"):
        table.add_column(name, justify="right")
    for peer in report.peers:
        if peer.reason is not None:
            table.add_row(peer.name, peer.model, f"[yellow]not measured: {peer.reason}[/yellow]")
            continue
        table.add_row(
            peer.name,
            peer.model,
            f"{peer.latency_ms:.3f} ms",
            f"{peer.latency_min_ms:.3f} ms",
            str(peer.runs),
            NOTHING if peer.accuracy is None else f"{peer.accuracy:.2%}",
            bytes_text(peer.bytes),
        )
    return table


def verdict_table(report: Report) -> Table:
    """Return the promises held against the measurements."""
    table = plain_table("", "promise", "wanted", "found")
    for verdict in report.verdicts:
        mark = "[green]✔[/green]" if verdict.passed else "[red]✘[/red]"
        table.add_row(mark, verdict.name, verdict.wanted, verdict.found)
    return table

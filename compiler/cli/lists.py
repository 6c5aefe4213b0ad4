"""`planish passes` and `planish targets`: what there is to choose from."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import plain_table, print_json, stdout

if TYPE_CHECKING:
    from planish.passes.base import Pass


def passes(
    name: Annotated[str | None, typer.Argument(help="A pass to explain.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the passes, or explain one: what it does, checks, and its options."""
    from planish.passes.registry import pass_class, pass_names

    names = pass_names() if name is None else [name]
    described = [_describe(pass_class(each)) for each in names]
    if as_json:
        print_json(described if name is None else described[0])
    elif name is None:
        _print_passes(described)
    else:
        _print_pass(described[0])


def targets(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the targets, and which of them this machine is."""
    from planish.backends.matching import obstacle
    from planish.backends.target import describe_target
    from planish.backends.targets import TARGETS, find_target
    from planish.ir.errors import TargetError

    rows: list[dict[str, Any]] = []
    for name in TARGETS:
        try:
            found = find_target(name)
        except TargetError as error:  # "native" on a processor that no target fits
            rows.append({"name": name, "description": str(error), "runs_here": False})
            continue
        rows.append(
            {
                "name": name,
                "description": found.description,
                "runs_here": obstacle(describe_target(found)) is None,
                "instruction": found.instruction,
                "instructions": found.instructions,
                "vector_bits": None if found.capability else found.vector_bits,
                "channel_multiple": found.channel_multiple,
            }
        )
    if as_json:
        print_json(rows)
        return
    table = plain_table("target", "what it is", "int8 instruction", "vector", "runs here")
    for row in rows:
        bits = f"{row['vector_bits']} bits" if row.get("vector_bits") else ""
        here = "[green]yes[/green]" if row["runs_here"] else "no"
        words = ", ".join(row.get("instructions", ()))
        table.add_row(row["name"], row["description"], words, bits, here)
    stdout().print(table)


def _describe(found: type[Pass]) -> dict[str, Any]:
    import dataclasses

    text = inspect.cleandoc(found.__doc__ or "")
    levels = [level.label for level in found.requires]
    return {
        "name": found.name,
        "summary": text.splitlines()[0] if text else "",
        "description": text,
        "requires": levels,
        "ensures": found.ensures.label if found.ensures is not None else None,
        "preserves": found.preserves.value,
        "needs_data": found.needs_data,
        "needs_labels": found.needs_labels,
        "options": [
            {"name": item.name, "type": str(item.type), "default": _default(item)}
            for item in dataclasses.fields(found)
        ],
    }


def _default(item: Any) -> Any:
    import dataclasses

    if item.default is not dataclasses.MISSING:
        return list(item.default) if isinstance(item.default, tuple) else item.default
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return None


def _print_passes(described: list[dict[str, Any]]) -> None:
    table = plain_table("pass", "level", "what it does")
    for item in described:
        after = item["ensures"]
        before = " | ".join(item["requires"])
        level = before if after in (None, before) else f"{before} → {after}"
        table.add_row(item["name"], level, item["summary"])
    stdout().print(table)


def _print_pass(item: dict[str, Any]) -> None:
    from rich.markup import escape

    console = stdout()
    console.print(f"[bold]{item['name']}[/bold]\n")
    console.print(escape(item["description"]))
    if not item["options"]:
        console.print("\nno options")
        return
    table = plain_table("option", "type", "default")
    for option in item["options"]:
        table.add_row(option["name"], escape(option["type"]), escape(repr(option["default"])))
    console.print(table)

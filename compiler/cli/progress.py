"""Progress of long work, drawn with rich on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from planish.passes.context import Item, Progress

_SHOWN_AFTER = 1.0  # seconds; shorter work would only flicker
_LINE_EVERY = 10.0  # seconds between two plain lines about the same thing


class Drawn(Progress):
    """Draws bars while work is going on; use it in a `with` statement.

    Where stderr is no terminal there are no bars, and a status is a plain line: at once when its
    first part ("epoch 2/6") changes, else every ten seconds.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._status: TaskID | None = None
        self._printed = ("", 0.0)  # what the last plain line was about, and when

    def __enter__(self) -> Drawn:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def track(
        self, items: Iterable[Item], description: str, total: int | None = None
    ) -> Iterator[Item]:
        if not self.console.is_terminal:
            yield from items
            return
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        task = self._bars.add_task(description, total=total, visible=False)
        start = time.monotonic()
        try:
            for item in items:
                yield item
                self._bars.update(task, advance=1, visible=time.monotonic() - start > _SHOWN_AFTER)
        finally:
            self._bars.remove_task(task)

    def status(self, text: str) -> None:
        if not self.console.is_terminal:
            self._print(text)
            return
        if self._status is not None:
            self._bars.remove_task(self._status)
        self._status = self._bars.add_task(f"[dim]{text}[/dim]", total=None)

    def _print(self, text: str) -> None:
        about, now = text.split(",")[0], time.monotonic()
        last, when = self._printed
        if about != last or now - when >= _LINE_EVERY:
            self.console.print(text, style="dim")
            self._printed = (about, now)

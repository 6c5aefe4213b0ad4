"""The picture of a file of results: how long each runtime takes, the faster other one being 1."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from .results import OWN, PEERS, Found, by_runtime, measured, thread_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {OWN: "#1b7f5c", PEERS[0]: "#b9bfc7", PEERS[1]: "#7f8a99"}
_HEIGHT = 0.26  # of a bar, in networks


def draw(found: Found) -> bytes:
    """Return an SVG: for each number of threads a panel, for each network a bar a runtime.

    A bar is the fastest call over that of the faster other runtime; the number at its end says
    milliseconds.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "planish"
    matplotlib.rcParams["svg.fonttype"] = "none"
    import matplotlib.pyplot as plt

    counts = thread_counts(found)
    rows = measured(found)
    size = (5.2 * len(counts), 0.9 + 0.62 * len(rows))
    figure, panels = plt.subplots(1, len(counts), figsize=size, sharey=True, squeeze=False)
    for panel, threads in zip(panels[0], counts, strict=True):
        _draw_panel(panel, found, threads)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.5 / size[1], 1, 1))
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    plt.close(figure)
    return content.getvalue()


def _draw_panel(panel: Axes, found: Found, threads: int) -> None:
    rows = measured(found)
    widest = 1.0
    for place, runtime in enumerate((OWN, *PEERS)):
        for line, row in enumerate(rows):
            results = by_runtime(row, threads)
            others = [results[name]["min_ms"] for name in PEERS if name in results]
            if runtime not in results or not others:
                continue
            time = results[runtime]["min_ms"]
            ratio = time / min(others)
            widest = max(widest, ratio)
            at = line + (place - 1) * _HEIGHT
            label = runtime if line == 0 else None
            panel.barh(at, ratio, _HEIGHT * 0.9, color=_COLOURS[runtime], label=label)
            panel.text(ratio + 0.02, at, f"{time:.3g} ms", va="center", fontsize=8)
    panel.axvline(1, color="#444444", linewidth=0.8, linestyle=":")
    panel.set_yticks(range(len(rows)), [row["network"] for row in rows])
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_xlim(0, widest * 1.2)
    panel.set_title(f"{threads} thread" + ("s" if threads > 1 else ""), fontsize=10)
    panel.set_xlabel("time over that of the faster other runtime", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)

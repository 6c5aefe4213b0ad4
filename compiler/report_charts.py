"""The report's drawings, as inline SVG that follows the page's light or dark colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 920, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 30, 18, 48
_POINTS = 0.005  # accuracy differences below half a point are noise on 10,000 images


@dataclass(frozen=True)
class Point:
    """One model in the trade-off drawing.

    Attributes:
        label: What stands beside it.
        x: Cost: milliseconds, or bytes.
        accuracy: 0..1.
        nbytes: Size; the area of the mark.
        ours: Whether planish made it.
    """

    label: str
    x: float
    accuracy: float
    nbytes: float | None
    ours: bool


@dataclass(frozen=True)
class _Mark:
    """A point on the page."""

    point: Point
    x: float
    y: float
    radius: float

    @property
    def box(self) -> _Box:
        return _Box(self.x - self.radius, self.y - self.radius, 2 * self.radius, 2 * self.radius)

    @property
    def circle(self) -> str:
        kind = "after" if self.point.ours else "peer"
        at = f'cx="{self.x:.1f}" cy="{self.y:.1f}" r="{self.radius:.1f}"'
        return f'<circle class="{kind}" {at} opacity="0.85"/>'

    def place_label(self, taken: list[_Box]) -> str:
        """Write the name on the first side that is free; remember its place in `taken`."""
        width = 6.9 * len(self.point.label) + 6
        beside, below = self.radius + 6, self.radius + 14
        sides = [(beside, 0.0), (-beside - width, 0.0)]
        for step in (0, 16, 32):
            sides += [(-width / 2, below + step), (-width / 2, -below - step)]
        boxes = [_Box(self.x + dx, self.y + dy - 8, width, 16) for dx, dy in sides]
        free = (box for box in boxes if box.inside() and not any(map(box.meets, taken)))
        chosen = next(free, boxes[0])
        taken.append(chosen)
        kind = "strong" if self.point.ours else ""
        return _text(chosen.x, chosen.y + 12, self.point.label, kind)


@dataclass(frozen=True)
class _Box:
    """A rectangle on the page: its upper left corner and its size."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: _Box) -> bool:
        across = self.x < other.x + other.width and other.x < self.x + self.width
        return across and self.y < other.y + other.height and other.y < self.y + self.height

    def inside(self) -> bool:
        """Whether it lies within the drawing's frame."""
        right, bottom = self.x + self.width, self.y + self.height
        return self.x > _LEFT and right < _WIDTH and self.y > _TOP and bottom < _HEIGHT - _BOTTOM


def trade_off(points: Sequence[Point], unit: str, reference: float | None) -> str:
    """Draw accuracy against cost: up and to the left is better.

    Args:
        points: At least one.
        unit: Name of the x axis: "milliseconds for one image, one thread".
        reference: Accuracy to stay close to; a band of half a point is drawn around it.
    """
    accuracies = [point.accuracy for point in points]
    if reference is not None:
        accuracies += [reference - _POINTS, reference + _POINTS]
    margin = max((max(accuracies) - min(accuracies)) * 0.15, 0.001)
    low, high = max(0.0, min(accuracies) - margin), min(1.0, max(accuracies) + margin)
    x_ticks = _ticks(0, max(point.x for point in points) * 1.12)
    right = max(x_ticks[-1], max(point.x for point in points) * 1.12)

    def at_x(value: float) -> float:
        return _LEFT + value / right * (_WIDTH - _LEFT - _RIGHT)

    def at_y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_open(_WIDTH, _HEIGHT, f"accuracy against {unit}")]
    if reference is not None:
        top, bottom = at_y(min(reference + _POINTS, high)), at_y(max(reference - _POINTS, low))
        parts.append(
            f'<rect class="band" x="{_LEFT}" y="{top:.1f}" width="{_WIDTH - _LEFT - _RIGHT}" '
            f'height="{bottom - top:.1f}"/>'
        )
    for tick in _ticks(low, high):
        if low <= tick <= high:
            y = at_y(tick)
            parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, "grid"))
            parts.append(_text(_LEFT - 8, y + 4, f"{tick * 100:.4g} %", "soft", "end"))
    for tick in x_ticks:
        x = at_x(tick)
        parts.append(_line(x, _HEIGHT - _BOTTOM, x, _HEIGHT - _BOTTOM + 5, "axis"))
        parts.append(_text(x, _HEIGHT - _BOTTOM + 19, f"{tick:.4g}", "soft", "middle"))
    parts.append(_line(_LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, "axis"))
    parts.append(_text(_WIDTH - _RIGHT, _HEIGHT - 8, f"{unit} →", "soft", "end"))
    parts.append(_text(_LEFT, _TOP - 5, "accuracy", "soft"))
    if reference is not None:
        note_y = at_y(min(reference + _POINTS, high)) + 28
        parts.append(_text(_LEFT + 8, note_y, "within half a point of the original", "soft"))
    largest = max((point.nbytes or 0 for point in points), default=0)
    marks = [
        _Mark(p, at_x(p.x), at_y(p.accuracy), _radius(p, largest))
        for p in sorted(points, key=lambda p: (not p.ours, p.x))
    ]
    taken = [mark.box for mark in marks]
    for mark in marks:
        parts += [mark.circle, mark.place_label(taken)]
    parts.append("</svg>")
    return "".join(parts)


def layer_widths(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> str:
    """Draw each layer's channels and MACs, before and after, paired by name.

    Args:
        before: Layers as `measure.Layer.to_json` gives them.
        after: The same; a layer that is gone has no counterpart.
    """
    found = {layer["name"]: layer for layer in after}
    rows = [(layer, found.get(layer["name"])) for layer in before]
    names = 8 + 6.6 * max((len(layer["name"]) for layer, _ in rows), default=0)
    names = min(max(names, 70), 230)
    row, top = 24, 30
    gap = 86  # room for the numbers behind the bars
    span = (_WIDTH - names - 2 * gap) / 2
    height = top + row * len(rows) + 6
    parts = [_open(_WIDTH, height, "channels and MACs of each layer, before and after")]
    for start, title, key in (
        (names, "output channels", "channels"),
        (names + span + gap, "MACs", "macs"),
    ):
        largest = max((layer[key] for layer, _ in rows), default=1) or 1
        parts.append(_text(start, 14, title, "soft"))
        for index, (old, new) in enumerate(rows):
            y = top + index * row
            parts += _pair(start, y, span, old[key], new[key] if new else 0, largest)
    for index, (layer, _) in enumerate(rows):
        label = layer["name"] if len(layer["name"]) < 34 else "…" + layer["name"][-32:]
        parts.append(_text(0, top + index * row + 11, label))
    parts.append("</svg>")
    return "".join(parts)


def _pair(x: float, y: float, span: float, old: float, new: float, largest: float) -> list[str]:
    """Draw one layer's two bars, the one after on the one before."""
    wide, narrow = old / largest * span, new / largest * span
    return [
        f'<rect class="before" x="{x:.1f}" y="{y}" width="{wide:.1f}" height="15" rx="2"/>',
        f'<rect class="after" x="{x:.1f}" y="{y + 3.5}" width="{narrow:.1f}" height="8" rx="2"/>',
        _text(x + max(wide, narrow) + 5, y + 11.5, _change(old, new), "soft"),
    ]


def _change(old: float, new: float) -> str:
    return _short(old) if old == new else f"{_short(old)} → {_short(new)}"


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / limit * (10 if unit == 'k' else 1):.3g}{unit}"
    return f"{value:g}"


def _ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Return round numbers that span low..high."""
    if high <= low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / wanted))
    step *= next(f for f in (1, 2, 2.5, 5, 10) if (high - low) / (step * f) <= wanted)
    first = math.ceil(low / step)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + index) * step for index in range(count)]


def _radius(point: Point, largest: float) -> float:
    """Return a radius whose circle's area grows with the size."""
    return 4 + 11 * math.sqrt((point.nbytes or 0) / largest) if largest else 7


def _open(width: float, height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}" '
        'xmlns="http://www.w3.org/2000/svg">'
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'

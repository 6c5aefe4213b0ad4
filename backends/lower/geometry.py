"""Where a layer's output pixels lie, as few loops as their distances allow."""

from __future__ import annotations

from dataclasses import dataclass

from ..layer import Layer

Steps = tuple[int, int, int]


@dataclass(frozen=True)
class Geometry:
    """Output pixels as images of lines; what lies evenly is one line.

    Attributes:
        images: Count of images.
        lines: Lines of an image.
        length: Pixels of a line.
        x: Elements from one image, line and pixel's window to the next in x.
        y: The same in y.
        other: The same in the residual's other summand.
        x_base: Where the first window begins in x.
        y_base: The first pixel of y.
        other_base: That of the other summand.
    """

    images: int
    lines: int
    length: int
    x: Steps
    y: Steps
    other: Steps | None
    x_base: int
    y_base: int
    other_base: int


def run_steps(layer: Layer, group: int) -> int:
    """Return how many reads of `group` neighbours a run of the window takes: a kernel row."""
    pixel = layer.x.layout.pixel_steps[2]
    return -(-((layer.kernel[1] - 1) * pixel + layer.in_channels) // group)


def find_geometry(layer: Layer) -> Geometry:
    """Return the geometry: an image whose lines follow each other evenly is one long line."""
    images, lines, length, _ = layer.y.layout.pixels
    maps = layer.pixel_maps()
    bases, steps = [m[0] for m in maps], [tuple(m[1:]) for m in maps]
    sizes, steps = _merged((images, lines, length), steps)
    x, y, *others = steps
    other = others[0] if others else None
    return Geometry(*sizes, x, y, other, bases[0], bases[1], bases[2] if others else 0)


def _merged(
    sizes: tuple[int, int, int], steps: list[tuple[int, ...]]
) -> tuple[tuple[int, int, int], list[Steps]]:
    """Join neighbouring axes where every operand's distances allow it, innermost first."""
    axes: list[tuple[int, tuple[int, ...]]] = []
    for size, step in zip(reversed(sizes), reversed(list(zip(*steps, strict=True))), strict=True):
        if axes and size == 1:
            continue
        if axes and axes[-1][0] == 1:
            axes[-1] = (size, step)
        elif axes and all(s == axes[-1][0] * i for s, i in zip(step, axes[-1][1], strict=True)):
            axes[-1] = (axes[-1][0] * size, axes[-1][1])
        else:
            axes.append((size, step))
    axes += [(1, tuple(0 for _ in steps))] * (3 - len(axes))
    counts = (axes[2][0], axes[1][0], axes[0][0])
    return counts, [(axes[2][1][i], axes[1][1][i], axes[0][1][i]) for i in range(len(steps))]

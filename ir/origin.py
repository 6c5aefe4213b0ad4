"""Where a node came from in the user's model; kept through every rewrite."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


@dataclass(frozen=True)
class Origin:
    """The user's name for a computation.

    Attributes:
        name: Module path of the layer ("layers.3.conv1"), or the node's first name when the
            computation belongs to no sub-module.
        file: The user's source file, or None if unknown.
        line: Line in that file, counted from 1.
    """

    name: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.file}:{self.line})" if self.file else self.name


def origin_from_export(node: fx.Node) -> Origin:
    """Read the origin that torch.export left in a node's metadata."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    path = ""
    for entry in stack.values():
        path = entry[0] or path
    frames = [
        (match["file"], int(match["line"]))
        for match in _FRAME.finditer(node.meta.get("stack_trace") or "")
    ]
    own = [frame for frame in frames if "site-packages" not in frame[0]] or frames
    file, line = own[-1] if own else (None, None)
    return Origin(_module_path(path) or node.name, file, line)


def _module_path(path: str) -> str:
    """Strip what torch.export wraps around a module path: "L['self'].a.b" -> "a.b"."""
    return re.sub(r"^L\[.self.\]\.?", "", path)


def get_origin(node: fx.Node) -> Origin:
    """Return the node's origin; a node made without one is its own origin."""
    found = node.meta.get("origin")
    return found if isinstance(found, Origin) else Origin(node.name)

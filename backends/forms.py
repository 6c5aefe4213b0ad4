"""Which tensors of four axes lie row-major instead of as images, channels last.

Convolutions and pools read and write images. Matrix products, linear layers and normalizations over
the last axis read and write rows, and their tensors of four axes ([images, heads, tokens, width] or
[images, height, width, channels]) would only be torn apart as images. Operators that work value by
value take what their readers want, else what their operands have.
"""

from __future__ import annotations

import torch
import torch.fx

from planish.ir import Graph
from planish.ir.ops import arguments

from .fusion import Fusion
from .operators import BYTES, MOVEMENTS

_planish = torch.ops.planish
_SOFTMAX = _planish.softmax_i8.default
_ROW_WRITERS = (
    _planish.matmul_i8.default,
    _planish.linear_i8.default,
    _planish.layer_norm_i8.default,
)
_ROW_READERS = (*_ROW_WRITERS, _planish.linear_dq.default, _planish.matmul_dq.default)
_VALUE_BY_VALUE = (
    _planish.quantize.default,
    _planish.add_i8.default,
    _planish.mul_i8.default,
    _planish.requantize_i8.default,
    _planish.clamp_i8.default,
    _planish.table_i8.default,
    _planish.pad_i8.default,
    _planish.mean_i8.default,
)


def _rank(node: torch.fx.Node) -> int:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, torch.Tensor) and value.dtype in BYTES else 0


def _softmax_form(node: torch.fx.Node) -> str | None:
    dim = int(arguments(node)["dim"]) % max(_rank(node), 1)
    return {1: "image", 3: "rows"}.get(dim)


def find_rows(graph: Graph, fusion: Fusion) -> set[torch.fx.Node]:
    """Return the nodes of four axes whose kernels shall write rows."""
    wanted = _find_wanted(graph)
    rows: set[torch.fx.Node] = set()
    for node in graph.nodes:
        if _rank(node) != 4 or node in fusion.residuals:
            continue
        form = wanted.get(node)
        if node.target in _ROW_WRITERS:
            form = "rows"
        elif node.target is _SOFTMAX:
            form = _softmax_form(node) or form or "rows"
        elif node.target in _VALUE_BY_VALUE or node.target in MOVEMENTS:
            images = any(_rank(n) == 4 and n not in rows for n in node.all_input_nodes)
            start = node.target is _planish.quantize.default
            form = form or ("image" if images or start else "rows")
        elif node.op not in ("placeholder", "get_attr"):
            form = "image"
        if form == "rows":
            rows.add(node)
    return rows


def _find_wanted(graph: Graph) -> dict[torch.fx.Node, str]:
    """Return the form that a node's readers want; images where they disagree."""
    wanted: dict[torch.fx.Node, str] = {}
    for node in reversed(list(graph.nodes)):
        votes = {_vote(user, wanted) for user in node.users} - {None}
        if votes and _rank(node) == 4:
            wanted[node] = "image" if "image" in votes else "rows"
    return wanted


def _vote(user: torch.fx.Node, wanted: dict[torch.fx.Node, str]) -> str | None:
    if user.target in _ROW_READERS:
        return "rows"
    if user.target is _SOFTMAX:
        return _softmax_form(user)
    if user.target in _VALUE_BY_VALUE:
        return wanted.get(user)
    # Movements are views wherever they can be; floats and results are dense.
    return None if user.target in MOVEMENTS or _rank(user) == 0 else "image"

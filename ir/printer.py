"""The readable text of a graph: one node a line.

    graph canonical (x: f32[N, 1, 28, 28])
      %conv2d = conv2d(%x, @stem.weight, None, [1, 1], [1, 1])  : f32[N, 16, 28, 28]  # stem
      return %conv2d

`%` names a node, `@` a stored tensor; N is the open batch size; the comment is the origin.
Tensors of at most four entries are shown by value where they parameterize quantization.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from .origin import get_origin
from .signature import dtype_label

if TYPE_CHECKING:
    from .graph import Graph


def graph_text(graph: Graph) -> str:
    """Return the whole graph as text, ending in a newline."""
    signature = ", ".join(str(spec) for spec in graph.inputs)
    lines = [f"graph {graph.level.label} ({signature})"]
    lines += [f"  {node_text(node)}" for node in graph.nodes if node.op == "call_function"]
    lines.append(f"  return {', '.join(_argument(node) for node in graph.outputs)}")
    return "\n".join(lines) + "\n"


def node_text(node: fx.Node) -> str:
    """Return one node as text, without indentation."""
    arguments = [_argument(value) for value in node.args]
    arguments += [f"{key}={_argument(value)}" for key, value in node.kwargs.items()]
    left = f"%{node.name} = {operator_label(node)}({', '.join(arguments)})"
    return f"{left}  : {_value_label(node.meta.get('val'))}  # {get_origin(node).name}"


def operator_label(node: fx.Node) -> str:
    """Return an operator's short name: aten.conv2d.default -> "conv2d"."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        label = str(target).removeprefix("aten.").removesuffix(".default")
        return label
    return getattr(target, "__name__", str(target))


def _argument(value: Any) -> str:
    if isinstance(value, fx.Node):
        return f"@{value.target}" if value.op == "get_attr" else f"%{value.name}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_argument(item) for item in value) + "]"
    if isinstance(value, torch.dtype):
        return dtype_label(value)
    if isinstance(value, float):
        return f"{value:.9g}"
    return repr(value) if isinstance(value, str) else str(value)


def _value_label(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        sizes = ", ".join(_size(size) for size in value.shape)
        return f"{dtype_label(value.dtype)}[{sizes}]"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_value_label(item) for item in value) + ")"
    return _size(value)


def _size(size: Any) -> str:
    return re.sub(r"\bs\d+\b", "N", str(size))

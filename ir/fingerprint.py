"""A digest of a graph: whether two graphs are the same, down to the bit."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch
from torch import fx
from torch.fx.node import map_arg

from .printer import graph_text

if TYPE_CHECKING:
    from .graph import Graph


def graph_fingerprint(graph: Graph) -> str:
    """Return the SHA-256 of a graph's text, outputs' nesting, annotations and tensors."""
    digest = hashlib.sha256(graph_text(graph).encode())
    digest.update(json.dumps([graph.structure, graph.annotations], sort_keys=True).encode())
    for name, tensor in sorted(graph.attributes.items()):
        head = f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad}"
        digest.update(head.encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def graph_content(graph: Graph) -> list[tuple[str, str]]:
    """Return (operator, arguments) of each node, with tensors by value and nodes by position.

    Graphs of equal content compute the same, whatever their nodes and tensors are called.
    """
    places: dict[fx.Node, str] = {}
    lines: list[tuple[str, str]] = []
    for node in graph.nodes:
        if node.op == "get_attr":
            tensor = graph.attribute(str(node.target))
            digest = hashlib.sha256(tensor_bytes(tensor)).hexdigest()
            places[node] = f"{tensor.dtype}{list(tensor.shape)}:{digest}"
            continue
        arguments = map_arg((node.args, node.kwargs), lambda value: _Place(places[value]))
        places[node] = f"%{len(lines)}"
        name = str(node.target) if node.op == "call_function" else node.op
        lines.append((name, str(arguments)))
    return lines


class _Place(str):
    """A node in printed arguments, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """Return a tensor's values as bytes, in row-major order."""
    plain = tensor.detach().cpu().contiguous()
    return plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""

"""A digest of a graph: whether two graphs are the same, down to the bit."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

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


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """Return a tensor's values as bytes, in row-major order."""
    plain = tensor.detach().cpu().contiguous()
    return plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""

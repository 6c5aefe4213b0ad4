"""Save and load a graph as one file: a zip of graph.json and tensors.safetensors. No pickle."""

from __future__ import annotations

import io
import json
import operator
import os
import zipfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import fx

from .errors import ModelError
from .files import write_beside
from .graph import Graph
from .history import HistoryEntry
from .level import Level
from .origin import Origin, get_origin
from .signature import InputSpec, dtype_name

FORMAT = 1
_STAMP = (1980, 1, 1, 0, 0, 0)  # a fixed time, so that equal graphs give equal files
# Python functions that exported graphs call on sizes.
_FUNCTIONS = {
    name: getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "getitem", "neg")
}
_NAMESPACES = ("aten", "planish")


def save_graph(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write `graph` to `path`: beside it first, then renamed."""
    tensors = {
        name: value.detach().clone().contiguous() for name, value in graph.attributes.items()
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "graph.json", json.dumps(_describe(graph), indent=1).encode())
        _add(archive, "tensors.safetensors", safetensors.torch.save(tensors))
    write_beside(path, buffer.getvalue())


def load_graph(path: str | os.PathLike[str]) -> Graph:
    """Read a graph that `save_graph` wrote.

    Raises:
        ModelError: The file can't be read, is not a planish graph, or is damaged.
    """
    where = str(path)
    try:
        content = Path(path).read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            description = json.loads(archive.read("graph.json"))
            tensors = safetensors.torch.load(archive.read("tensors.safetensors"))
    except OSError as error:
        raise ModelError(f"can't read the graph: {error.strerror or error}", where=where) from error
    except (zipfile.BadZipFile, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise ModelError(
            "not a planish graph, or a damaged one",
            where=where,
            cure="save it again with Graph.save",
        ) from error
    if description.get("format") != FORMAT:
        raise ModelError(
            f"graph format {description.get('format')} is not {FORMAT}",
            where=where,
            cure="save it again with this version of planish",
        )
    try:
        return _rebuild(description, tensors)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError) as error:
        raise ModelError(f"a damaged planish graph: {error}", where=where) from error


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _STAMP)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)


def _describe(graph: Graph) -> dict[str, Any]:
    trainable = [name for name, value in graph.attributes.items() if value.requires_grad]
    return {
        "format": FORMAT,
        "level": graph.level.label,
        "inputs": [[s.name, list(s.shape), dtype_name(s.dtype)] for s in graph.inputs],
        "structure": graph.structure,
        "nodes": [_describe_node(node) for node in graph.nodes],
        "tensors": list(graph.attributes),  # their order is the optimizer's
        "trainable": trainable,
        "history": [entry.to_json() for entry in graph.history],
        "annotations": graph.annotations,
        "output_names": graph.output_names,
    }


def _describe_node(node: fx.Node) -> dict[str, Any]:
    origin = get_origin(node)
    marks = {"frozen": True} if node.meta.get("frozen") else {}
    return {
        **marks,
        "name": node.name,
        "op": node.op,
        "target": _target_name(node),
        "args": _encode(node.args),
        "kwargs": _encode(node.kwargs),
        "origin": [origin.name, origin.file, origin.line],
    }


def _target_name(node: fx.Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target)
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        if _FUNCTIONS.get(name) is not node.target:
            raise ModelError(f"can't save a call of {node.target}", where=str(get_origin(node)))
        return f"operator.{name}"
    return str(node.target)


def _resolve(name: str) -> Any:
    namespace, _, rest = name.partition(".")
    if namespace == "operator":
        return _FUNCTIONS[rest]
    if namespace not in _NAMESPACES and not hasattr(torch.ops, namespace):
        raise KeyError(f"unknown operator {name}")
    packet, _, overload = rest.rpartition(".")
    found = getattr(getattr(getattr(torch.ops, namespace), packet), overload)
    if not isinstance(found, torch._ops.OpOverload):
        raise KeyError(f"unknown operator {name}")
    return found


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise KeyError(f"unknown dtype {name}")
    return found


def _encode(value: Any) -> Any:
    """Spell an argument as JSON; what JSON doesn't have becomes a dict of one entry."""
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.dtype):
        return {"dtype": dtype_name(value)}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, dict):
        return {"dict": {key: _encode(item) for key, item in value.items()}}
    if isinstance(value, float):
        return {"float": value.hex()}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, torch.device | torch.memory_format | torch.layout):
        return {"torch": str(value)}
    raise ModelError(f"can't save an argument of type {type(value).__name__}")


def _decode(value: Any, nodes: dict[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_decode(item, nodes) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return nodes[content]
    if kind == "dtype":
        return _dtype(content)
    if kind == "float":
        return float.fromhex(content)
    if kind == "dict":
        return {key: _decode(item, nodes) for key, item in content.items()}
    if kind == "torch":
        return _torch_constant(content)
    raise KeyError(f"unknown argument kind {kind}")


def _torch_constant(name: str) -> Any:
    if name.startswith("torch."):
        found = getattr(torch, name.removeprefix("torch."))
        if not isinstance(found, torch.memory_format | torch.layout):
            raise KeyError(f"unknown constant {name}")
        return found
    return torch.device(name)


def _rebuild(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Graph:
    inputs = [InputSpec(n, tuple(shape), _dtype(d)) for n, shape, d in description["inputs"]]
    graph = Graph(
        fx.GraphModule(torch.nn.Module(), fx.Graph()),
        Level[description["level"].upper()],
        inputs,
        description["structure"],
        [HistoryEntry.from_json(entry) for entry in description["history"]],
        description["annotations"],
        description.get("output_names"),
    )
    trainable = set(description["trainable"])
    for name in description["tensors"]:
        graph.set_attribute(name, tensors[name], trainable=name in trainable)
    nodes: dict[str, fx.Node] = {}
    for item in description["nodes"]:
        nodes[item["name"]] = _rebuild_node(graph.fx, item, nodes)
    return graph.infer()


def _rebuild_node(graph: fx.Graph, item: dict[str, Any], nodes: dict[str, fx.Node]) -> fx.Node:
    op, target = item["op"], item["target"]
    if op not in ("placeholder", "get_attr", "call_function", "output"):
        raise KeyError(f"unknown node kind {op}")
    args = tuple(_decode(item["args"], nodes))
    kwargs = _decode(item["kwargs"], nodes)
    resolved = _resolve(target) if op == "call_function" else target
    node = graph.create_node(op, resolved, args, kwargs, name=item["name"])
    node.meta["origin"] = Origin(*item["origin"])
    if item.get("frozen"):
        node.meta["frozen"] = True
    return node

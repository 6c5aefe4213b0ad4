"""Reading an ONNX model: what the file says is checked before anything is built on it."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import DecodeError
from onnx_graphsurgeon.logger import G_LOGGER

from planish.ir.errors import ModelError, OperatorError, first_line

OLDEST_OPSET = 1
# Above graphsurgeon's own highest level: what it reports, the errors here say better.
SILENT = G_LOGGER.CRITICAL + 1


@dataclass(frozen=True)
class Source:
    """A model that was read and checked.

    Attributes:
        proto: As it was read.
        graph: Its nodes in order, dead ones removed.
        opsets: The opset of each domain.
        folder: Where external data may lie; None for a model in memory.
    """

    proto: onnx.ModelProto
    graph: gs.Graph
    opsets: dict[str, int]
    folder: Path | None


def load(model: onnx.ModelProto | str | os.PathLike[str]) -> Source:
    """Read and check a model, without its external data.

    Raises:
        ModelError: No ONNX model, a damaged one, or one that breaks the format's rules.
        OperatorError: An opset that planish doesn't know.
    """
    if isinstance(model, onnx.ModelProto):
        proto, folder, where = model, None, "the given ModelProto"
    else:
        path = Path(model)
        proto, folder, where = _parse(path), path.parent, str(path)
    if not proto.HasField("graph") or not proto.graph.output:
        raise ModelError("not an ONNX model: it has no graph with outputs", where=where)
    opsets = _opsets(proto, where)
    _check_names(proto.graph, where)
    ordered = _is_ordered(proto.graph, where)
    try:
        with G_LOGGER.suppress(SILENT):
            graph = gs.import_onnx(proto)
            graph.cleanup(recurse_subgraphs=False, recurse_functions=False)
            if not ordered:
                graph.toposort(recurse_subgraphs=False, recurse_functions=False, mode="nodes")
    except Exception as error:
        reason = first_line(error)
        raise ModelError(
            f"the ONNX model is malformed: {reason}",
            where=where,
            cure="onnx.checker.check_model says more",
        ) from error
    return Source(proto, graph, opsets, folder)


def _parse(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ModelError("no such model file", where=str(path))
    try:
        return onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"can't read the model: {error.strerror or error}", where=str(path)
        ) from error
    except (DecodeError, MemoryError, RecursionError, ValueError) as error:
        raise ModelError(
            "not an ONNX model, or a damaged one",
            where=str(path),
            cure="it may be truncated; export or download it again",
        ) from error


def _opsets(proto: onnx.ModelProto, where: str) -> dict[str, int]:
    opsets = {_domain(entry.domain): int(entry.version) for entry in proto.opset_import}
    newest = onnx.defs.onnx_opset_version()
    version = opsets.get("")
    if version is None:
        if any(_domain(node.domain) == "" for node in proto.graph.node):
            raise ModelError("the ONNX model doesn't say its opset", where=where)
        opsets[""] = version = newest
    if not OLDEST_OPSET <= version <= newest:
        raise OperatorError(
            f"opset {version} is not supported",
            where=where,
            cure=f"convert the model to {OLDEST_OPSET}..{newest}: onnx.version_converter",
        )
    return opsets


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _check_names(graph: onnx.GraphProto, where: str) -> None:
    """Every value has one source: an input, an initializer or a node."""
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise OperatorError(f"sparse initializer {name!r} is not supported", where=where)
    for kind, names in (
        ("inputs", [value.name for value in graph.input]),
        ("initializers", [tensor.name for tensor in graph.initializer]),
        ("outputs", [value.name for value in graph.output]),
    ):
        doubled = _first_double(names)
        if doubled is not None:
            raise ModelError(f"two {kind} are named {doubled!r}", where=where)
        if "" in names:
            raise ModelError(f"one of the {kind} has no name", where=where)
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    made = [name for node in graph.node for name in node.output if name]
    doubled = _first_double(made) or next((name for name in made if name in given), None)
    if doubled is not None:
        raise ModelError(f"the value {doubled!r} is computed twice", where=where)
    known = given.union(made)
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                raise ModelError(
                    f"nothing computes {name!r}, an input of {node.op_type} {node.name!r}",
                    where=where,
                    cure="an initializer or a node is missing; export the model again",
                )
    for value in graph.output:
        if value.name not in known:
            raise ModelError(f"nothing computes the output {value.name!r}", where=where)


def _first_double(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _is_ordered(graph: onnx.GraphProto, where: str) -> bool:
    """Whether every node stands after what it reads; a cycle is an error."""
    producer = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    reads = [{producer[name] for name in node.input if name in producer} for node in graph.node]
    if all(source < index for index, sources in enumerate(reads) for source in sources):
        return True
    readers: dict[int, list[int]] = {}
    for index, sources in enumerate(reads):
        for source in sources:
            readers.setdefault(source, []).append(index)
    missing = [len(sources) for sources in reads]
    ready = deque(index for index, count in enumerate(missing) if count == 0)
    done = 0
    while ready:
        done += 1
        for reader in readers.get(ready.popleft(), ()):
            missing[reader] -= 1
            if missing[reader] == 0:
                ready.append(reader)
    if done < len(reads):
        stuck = next(index for index, count in enumerate(missing) if count)
        node = graph.node[stuck]
        raise ModelError(f"the graph has a cycle through {node.op_type} {node.name!r}", where=where)
    return False

"""From torch.export's program to a graph at the captured level."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from planish.ir.calling import flatten_structure
from planish.ir.errors import ModelError
from planish.ir.graph import Graph
from planish.ir.level import Level
from planish.ir.origin import Origin, origin_from_export
from planish.ir.printer import operator_label
from planish.ir.signature import InputSpec

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def user_frame(text: str) -> tuple[str, int] | None:
    """Return the last (file, line) of a printed stack that is not an installed package's."""
    frames = [(name, int(line)) for name, line in _FRAME.findall(text)]
    own = [frame for frame in frames if "site-packages" not in frame[0]]
    return own[-1] if own else None


def graph_from_program(program: ExportedProgram) -> Graph:
    """Return the graph of an exported program: unlifted, guards dropped, tensors copied.

    Raises:
        ModelError: An input or output that is not a tensor, or control flow that torch.export
            kept as a sub-graph.
    """
    module = program.module()
    assert isinstance(module, fx.GraphModule)
    source = module.graph
    inputs = [_input_spec(node) for node in source.nodes if node.op == "placeholder"]
    structure = _structure(module)
    graph = Graph(fx.GraphModule(torch.nn.Module(), fx.Graph()), Level.CAPTURED, inputs, structure)
    _copy_nodes(module, graph)
    return graph.prune_dead().infer()


def _input_spec(node: fx.Node) -> InputSpec:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        raise ModelError(
            f"input {node.name!r} is not a tensor", cure="bind it before capture (a wrapper module)"
        )
    sizes = tuple(size if isinstance(size, int) else None for size in value.shape)
    if None in sizes[1:]:
        raise ModelError(
            f"input {node.name!r} has an open size beside the batch: {list(value.shape)}",
            cure="export it with a static shape; only axis 0 may be dynamic",
        )
    return InputSpec(node.name, sizes, value.dtype)


def _structure(module: fx.GraphModule) -> Any:
    """Return how the model nests its outputs; leaves are the flat outputs' positions."""
    spec = module._out_spec
    if spec is None:
        raise ModelError("the exported program does not say how its outputs are nested")
    nested = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    return flatten_structure(nested, [])


def _copy_nodes(module: fx.GraphModule, graph: Graph) -> None:
    copied: dict[fx.Node, fx.Node] = {}
    names = _StoredNames(module, graph)
    taken: dict[str, int] = {}
    for node in module.graph.nodes:
        if node.op == "call_module":
            if str(node.target).startswith("_guards_fn"):
                continue
            raise ModelError(f"torch.export kept a sub-module call: {node.target}")
        if node.op == "get_attr":
            copied[node] = graph.fx.get_attr(
                names.store(str(node.target), str(origin_from_export(node)))
            )
            continue
        new = graph.fx.node_copy(node, lambda argument: copied[argument])
        new.meta = {}
        copied[node] = new
        if node.op == "call_function":
            new.meta["origin"] = _unique_origin(node, taken)
        elif node.op == "output":
            _check_outputs(new)


class _StoredNames:
    """Copies tensors on first use; tensors that the model shares stay shared."""

    def __init__(self, module: fx.GraphModule, graph: Graph) -> None:
        self.module, self.graph = module, graph
        self.by_identity: dict[int, str] = {}

    def store(self, name: str, where: str) -> str:
        value: Any = self.module
        for part in name.split("."):
            value = getattr(value, part)
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"the model keeps control flow as a sub-graph ({name})",
                where=where,
                cure="only straight-line models can be captured",
            )
        known = self.by_identity.setdefault(id(value), name)
        if known == name and name not in self.graph.attributes:
            self.graph.set_attribute(
                name, value, trainable=isinstance(value, torch.nn.Parameter) and value.requires_grad
            )
        return known


def _check_outputs(node: fx.Node) -> None:
    for index, value in enumerate(node.args[0]):  # type: ignore[arg-type]
        if not isinstance(value, fx.Node):
            raise ModelError(
                f"output {index} of the model is {value!r}, not a tensor",
                cure="return tensors only",
            )


def _unique_origin(node: fx.Node, taken: dict[str, int]) -> Origin:
    """Name a node after its layer; what belongs to no layer after its block and operator."""
    found = origin_from_export(node)
    name = found.name if _is_layer(node) else _inside_block(node, found)
    count = taken.get(name, 0)
    taken[name] = count + 1
    return Origin(f"{name}_{count}" if count else name, found.file, found.line)


def _is_layer(node: fx.Node) -> bool:
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return False
    kind = str(list(stack.values())[-1][1])
    return "torch.nn.modules" in kind and "container" not in kind


def _inside_block(node: fx.Node, origin: Origin) -> str:
    operator = operator_label(node).split(".")[0].rstrip("_")
    return operator if origin.name == node.name else f"{origin.name}.{operator}"

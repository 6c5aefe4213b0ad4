"""What a float island computes of stored tensors alone is computed once, by torch.

TVM would compile and run a function for each such value; of a network with a hundred layers that
took half a minute.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

# A result this small is stored whatever it is made of; larger ones only if they don't grow.
_SMALL = 1 << 16


def fold_constants(program: ExportedProgram) -> ExportedProgram:
    """Replace what depends on stored tensors alone by stored tensors, in place."""
    graph = program.graph_module.graph
    known: dict[torch.fx.Node, Any] = _stored(program)
    with torch.no_grad():
        for node in graph.nodes:
            if _may_fold(node, known):
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), known.__getitem__)
                value = node.target(*args, **kwargs)
                if _is_worth_it(value, [known[source] for source in node.all_input_nodes]):
                    known[node] = value
    for node in [n for n in known if n.op == "call_function"]:
        if isinstance(known[node], torch.Tensor) and any(user not in known for user in node.users):
            _store(program, node, known[node])
    graph.eliminate_dead_code()
    return program


def _stored(program: ExportedProgram) -> dict[torch.fx.Node, Any]:
    tensors = {**program.state_dict, **program.constants}
    kinds = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
    targets = {
        spec.arg.name: spec.target
        for spec in program.graph_signature.input_specs
        if spec.kind in kinds
    }
    return {
        node: tensors[str(targets[node.name])]
        for node in program.graph_module.graph.find_nodes(op="placeholder")
        if node.name in targets
    }


def _may_fold(node: torch.fx.Node, known: dict[torch.fx.Node, Any]) -> bool:
    if node.op != "call_function" or any(n not in known for n in node.all_input_nodes):
        return False
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded not in tags


def _is_worth_it(value: Any, inputs: list[Any]) -> bool:
    if not isinstance(value, torch.Tensor):
        return isinstance(value, tuple | list)
    read = sum(tensor.numel() for tensor in inputs if isinstance(tensor, torch.Tensor))
    return value.numel() <= max(2 * read, _SMALL)


def _store(program: ExportedProgram, node: torch.fx.Node, value: torch.Tensor) -> None:
    """Make a stored tensor of a node's value."""
    graph = program.graph_module.graph
    first = next(iter(graph.nodes))
    with graph.inserting_before(first):
        stored = graph.placeholder(f"folded_{node.name}")
    stored.meta = dict(node.meta)
    node.replace_all_uses_with(stored)
    name = stored.name
    program.constants[name] = value.detach().clone(memory_format=torch.contiguous_format)
    spec = InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(name=name), name)
    program.graph_signature.input_specs.append(spec)

"""Float islands: what an integer graph leaves in float, and wholly float graphs.

A run of float nodes that stand side by side is cut out, exported, and lowered by TVM's own importer
and passes (Relax: legalize, fold constants, fuse). What comes out is a list of TensorIR functions
with static shapes, which join the plan as ordinary kernel calls: one entry function still calls
everything, and nothing is interpreted at run time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.fx

from planish.ir import Graph, OperatorError

from .lowering import is_float

if TYPE_CHECKING:
    from .lowering import Lowering


@dataclass
class Island:
    """A run of float nodes.

    Attributes:
        graph: The whole graph.
        nodes: The run.
        results: Those of its nodes that others read.
    """

    graph: Graph
    nodes: list[torch.fx.Node]
    results: list[torch.fx.Node] = field(default_factory=list)

    def cut_out(self) -> tuple[torch.fx.GraphModule, list[torch.fx.Node]]:
        """Return the run as a module of its own, and the nodes that are its inputs."""
        inside = set(self.nodes)
        root, piece = torch.nn.Module(), torch.fx.Graph()
        copied: dict[torch.fx.Node, Any] = {}
        inputs: list[torch.fx.Node] = []

        def placeholders() -> None:
            for node in self.nodes:
                for source in node.all_input_nodes:
                    tensor = isinstance(source.meta.get("val"), torch.Tensor)
                    if source in inside or source in copied or not tensor:
                        continue
                    if source.op == "get_attr":
                        continue
                    copied[source] = piece.placeholder(f"x{len(inputs)}")
                    inputs.append(source)

        def known(source: torch.fx.Node) -> Any:
            if source in copied:
                return copied[source]
            if source.op == "get_attr":
                name = str(source.target).replace(".", "_")
                root.register_buffer(name, self.graph.attribute(str(source.target)).detach())
                copied[source] = piece.get_attr(name)
                return copied[source]
            return int(source.meta["val"])

        placeholders()
        for node in self.nodes:
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), known)
            copied[node] = piece.call_function(node.target, args, kwargs)  # type: ignore[arg-type]
        self.results = [n for n in self.nodes if any(user not in inside for user in n.users)]
        piece.output(tuple(copied[n] for n in self.results))
        return torch.fx.GraphModule(root, piece), inputs

    def lower(self, lowering: Lowering) -> None:
        """Append the island's kernel calls to the plan."""
        from .float_kernels import lower_module

        module, inputs = self.cut_out()
        values = [lowering.dense(node) for node in inputs]
        samples = tuple(
            torch.zeros([int(s) for s in node.meta["val"].shape], dtype=node.meta["val"].dtype)
            for node in inputs
        )
        label = lowering.label(self.nodes[0])
        made = lower_module(module, samples, values, lowering.plan, label)
        for node, value in zip(self.results, made, strict=True):
            lowering.values[node] = value


def find_islands(graph: Graph, skipped: set[torch.fx.Node]) -> dict[torch.fx.Node, Island]:
    """Return each island under its first node."""
    islands: dict[torch.fx.Node, Island] = {}
    run: list[torch.fx.Node] = []

    def close() -> None:
        if run:
            islands[run[0]] = Island(graph, list(run))
            run.clear()

    for node in graph.nodes:
        if node.op != "call_function" or node in skipped:
            continue
        if is_float(node):
            run.append(node)
        elif not _is_number(node):
            close()
    close()
    return islands


def _is_number(node: torch.fx.Node) -> bool:
    """Whether a node computes a size, which is known by now."""
    return not isinstance(node.meta.get("val"), torch.Tensor | tuple | list)


def export_island(module: torch.fx.GraphModule, samples: tuple[torch.Tensor, ...]) -> Any:
    """Return the exported program of an island.

    Raises:
        OperatorError: torch.export refuses it.
    """
    try:
        return torch.export.export(module.eval(), samples)
    except (RuntimeError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise OperatorError(f"a float operator can't be exported: {first}") from error

"""Float islands: what an integer graph leaves in float, and wholly float graphs.

A run of float nodes that stand side by side is cut out, exported, and lowered by TVM's own importer
and passes (Relax: legalize, fold constants, fuse). What comes out is a list of TensorIR functions
with static shapes, which join the plan as ordinary kernel calls: one entry function still calls
everything, and nothing is interpreted at run time.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.fx

from planish.ir import Graph, OperatorError
from planish.ir.ops import has_row, row
from planish.ir.signature import dtype_name

from .floats.decompositions import DECOMPOSITIONS
from .operators import is_float
from .plan import Value

if TYPE_CHECKING:
    from .lowering import Lowering


# What torch.export, TVM's importer and its passes raise for what they don't know.
FAILURES = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,  # TVM's own errors among them
    TypeError,
    ValueError,
    NotImplementedError,
)


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

    def cut_out(
        self, results: list[torch.fx.Node] | None = None
    ) -> tuple[torch.fx.GraphModule, list[torch.fx.Node]]:
        """Return the run as a module of its own, and the nodes that are its inputs.

        Args:
            results: What the module returns; by default all that others read.
        """
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
            target: Any = DECOMPOSITIONS.get(node.target, node.target)
            copied[node] = piece.call_function(target, args, kwargs)
        self.results = results or [
            n for n in self.nodes if any(user not in inside for user in n.users)
        ]
        piece.output(tuple(copied[n] for n in self.results))
        return torch.fx.GraphModule(root, piece), inputs

    def lower(self, lowering: Lowering) -> None:
        """Append the island's kernel calls to the plan.

        Raises:
            OperatorError: An operator can't be compiled; the error names the layer and operator.
        """
        from .float_kernels import append_kernels, lower_module

        module, inputs = self.cut_out()
        try:
            lowered = lower_module(module, self._samples(inputs), lowering.plan.target)
        except FAILURES as error:
            raise self._blamed(lowering, error) from error
        values = [lowering.dense(node) for node in inputs]
        label = lowering.label(self.nodes[0])
        made = append_kernels(lowered, values, lowering.plan, label)
        for node, value in zip(self.results, made, strict=True):
            self._check(lowering, node, value)
            lowering.values[node] = value

    @staticmethod
    def _samples(inputs: list[torch.fx.Node]) -> tuple[torch.Tensor, ...]:
        return tuple(
            torch.zeros([int(s) for s in node.meta["val"].shape], dtype=node.meta["val"].dtype)
            for node in inputs
        )

    @staticmethod
    def _check(lowering: Lowering, node: torch.fx.Node, value: Value) -> None:
        """What TVM makes must be what the graph says: the next kernel counts on it."""
        wanted = (lowering.shape(node), dtype_name(node.meta["val"].dtype))
        if (value.layout.shape, value.layout.dtype) != wanted:
            raise OperatorError(
                f"TVM makes {value.layout.dtype} {list(value.layout.shape)} of {node.target}, "
                f"not {wanted[1]} {list(wanted[0])}",
                where=lowering.label(node),
                cure="rewrite the model without this operator",
            )

    def _blamed(self, lowering: Lowering, error: BaseException) -> OperatorError:
        """Return an error that names the operator: the first that can't be compiled alone."""
        from .float_kernels import lower_module

        culprit, reason = self.nodes[0], error
        for node in self.nodes:
            if not isinstance(node.meta.get("val"), torch.Tensor) and len(self.nodes) > 1:
                continue  # several results: compiled with the getitem that takes one of them
            alone = [node]
            if node.target is operator.getitem:
                alone = [*(n for n in node.all_input_nodes if n in self.nodes), node]
            module, inputs = Island(self.graph, alone).cut_out(alone[-1:])
            try:
                lower_module(module, self._samples(inputs), lowering.plan.target)
            except FAILURES as found:
                culprit, reason = alone[0], found
                break
        return self._refusal(lowering, culprit, reason)

    @staticmethod
    def _refusal(
        lowering: Lowering, culprit: torch.fx.Node, reason: BaseException
    ) -> OperatorError:
        lines = [line for line in str(reason).strip().splitlines() if line.strip()]
        text = lines[0].strip() if lines else type(reason).__name__
        if "Unsupported function type" in text:
            text = "there is no kernel for it"
        cure = "rewrite the model without it, or run that part outside of planish"
        if "on a GPU" in text or "of a GPU" in text:
            cure = f"{cure}, or compile for a processor"
        if text.endswith("float64"):
            cure = "convert the model with model.float() before it is captured"
        return OperatorError(
            f"{_operator_name(culprit)} can't be compiled as a float operator: {text}",
            where=f"{lowering.label(culprit)} ({culprit.target})",
            cure=cure,
        )


def _operator_name(node: torch.fx.Node) -> str:
    return row(node).name if has_row(node.target) else str(node.target)


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

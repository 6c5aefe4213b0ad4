"""The graph: one torch.fx module that runs at every level."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from .calling import Structure, bind_arguments, nest_structure
from .history import HistoryEntry
from .infer import get_tensor, infer_values
from .level import Level
from .ops import follows_mode, is_training, set_training
from .origin import Origin, get_origin
from .signature import InputSpec, check_input


class Graph:
    """A neural network as a flat ATen graph.

    Attributes:
        module: The executable graph. Parameters and buffers are get_attr nodes with dotted names.
        level: How far it has been lowered.
        inputs: One specification an input.
        structure: How the flat outputs are nested (see `calling.Structure`).
        history: The passes applied so far.
        annotations: Plain JSON that a pass leaves for a later one ("teacher-hooks": {...}). The
            keys are states of the graph that pipelines check the order of passes by.
        output_names: The model's own names of its flat outputs, in order; None where it has none
            (only ONNX models do).
    """

    def __init__(
        self,
        module: fx.GraphModule,
        level: Level,
        inputs: list[InputSpec],
        structure: Structure,
        history: list[HistoryEntry] | None = None,
        annotations: dict[str, Any] | None = None,
        output_names: list[str] | None = None,
    ) -> None:
        self.module = module
        self.level = level
        self.inputs = inputs
        self.structure = structure
        self.history = history or []
        self.annotations = annotations or {}
        self.output_names = output_names

    @property
    def fx(self) -> fx.Graph:
        """The torch.fx graph, to be edited by passes; call `infer` after editing."""
        return self.module.graph

    @property
    def nodes(self) -> Iterator[fx.Node]:
        """The nodes in execution order."""
        return iter(list(self.module.graph.nodes))

    @property
    def calls(self) -> list[fx.Node]:
        """The operator nodes in execution order."""
        return [node for node in self.module.graph.nodes if node.op == "call_function"]

    @property
    def outputs(self) -> list[fx.Node]:
        """The nodes that the graph returns, flat."""
        return list(self.fx.output_node().args[0])  # type: ignore[arg-type]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph on what the model took; return what the model returned.

        Raises:
            DataError: A wrong count, name, shape or dtype of inputs.
        """
        values = bind_arguments([s.name for s in self.inputs], args, kwargs, "model")
        tensors = [check_input(s, v) for s, v in zip(self.inputs, values, strict=True)]
        return nest_structure(self.structure, list(self.module(*tensors)))

    def attribute(self, name: str) -> torch.Tensor:
        """Return the parameter or buffer with this dotted name."""
        return get_tensor(self.module, name)

    def set_attribute(self, name: str, value: torch.Tensor, *, trainable: bool = False) -> None:
        """Add or replace a parameter (trainable) or buffer under a dotted name."""
        *path, leaf = name.split(".")
        owner: torch.nn.Module = self.module
        for part in path:
            if not isinstance(getattr(owner, part, None), torch.nn.Module):
                setattr(owner, part, torch.nn.Module())
            owner = getattr(owner, part)
        if hasattr(owner, leaf):
            delattr(owner, leaf)
        if trainable:
            setattr(owner, leaf, torch.nn.Parameter(value.detach().clone()))
        else:
            owner.register_buffer(leaf, value.detach().clone())

    def new_attribute(self, name: str, value: torch.Tensor, *, trainable: bool = False) -> str:
        """Add a tensor under `name`, or under `name_1`, `name_2`, ... where that is taken."""
        unique = self._free_name(name)
        self.set_attribute(unique, value, trainable=trainable)
        return unique

    def _free_name(self, name: str) -> str:
        """Return a dotted name, near `name`, at which neither tensor nor folder is stored."""
        owner: Any = self.module
        path: list[str] = []
        *folders, leaf = name.split(".")
        for part in folders:
            # An operator may be named as a module's method is ("float"), or a tensor ("mean").
            while hasattr(fx.GraphModule, part) or isinstance(
                getattr(owner, part, None), torch.Tensor
            ):
                part += "_"
            owner = getattr(owner, part, None)
            path.append(part)
        leaf = f"{leaf}_" if hasattr(fx.GraphModule, leaf) else leaf
        unique, count = leaf, 0
        while hasattr(owner, unique):
            count += 1
            unique = f"{leaf}_{count}"
        return ".".join([*path, unique])

    def insert_tensor(
        self, name: str, value: torch.Tensor, before: fx.Node, *, trainable: bool = False
    ) -> fx.Node:
        """Store a tensor under a free name and return a node before `before` that reads it."""
        unique = self.new_attribute(name, value, trainable=trainable)
        with self.fx.inserting_before(before):
            return self.fx.get_attr(unique)

    @property
    def attributes(self) -> dict[str, torch.Tensor]:
        """All parameters and buffers by dotted name."""
        tensors: dict[str, torch.Tensor] = dict(
            self.module.named_parameters(remove_duplicate=False)
        )
        tensors.update(self.module.named_buffers(remove_duplicate=False))
        return tensors

    def parameters(self) -> list[torch.nn.Parameter]:
        """The trainable tensors."""
        return list(self.module.parameters())

    def train(self) -> Graph:
        """Let batch norm use batch statistics and dropout drop, as in any module."""
        return self._set_mode(training=True)

    def eval(self) -> Graph:
        """Let batch norm use its running statistics and dropout pass everything."""
        return self._set_mode(training=False)

    def _set_mode(self, *, training: bool) -> Graph:
        changed = [set_training(node, training) for node in self.calls if follows_mode(node)]
        self.module.training = training
        if any(changed):
            self.module.recompile()
        return self

    @property
    def training(self) -> bool:
        """Whether batch norm and dropout are in training mode; False where there are none."""
        return any(is_training(node) for node in self.calls if follows_mode(node))

    def origin(self, node: fx.Node) -> Origin:
        """Return where a node came from."""
        return get_origin(node)

    def infer(self, *, keep_open: bool = False) -> Graph:
        """Recompile after editing, and write each node's shape and dtype to `meta["val"]`.

        Args:
            keep_open: Whether an operator that doesn't leave the batch open is an error.

        Raises:
            ModelError: An operator rejects the shapes or dtypes it is given; names the node.
            OperatorError: See `keep_open`.
        """
        self.fx.lint()
        self.module.recompile()
        for node, value in infer_values(self.module, self.inputs, keep_open=keep_open).items():
            node.meta["val"] = value
        return self

    def prune_dead(self) -> Graph:
        """Remove nodes whose value is unused, and tensors that no node refers to."""
        self.fx.eliminate_dead_code()
        used = {str(node.target) for node in self.nodes if node.op == "get_attr"}
        for name in set(self.attributes) - used:
            owner, _, leaf = name.rpartition(".")
            delattr(self.module.get_submodule(owner), leaf)
        self.module.delete_all_unused_submodules()
        return self

    def shape(self, node: fx.Node) -> tuple[int | None, ...]:
        """Return a node's sizes; None where the size depends on the open batch."""
        sizes = node.meta["val"].shape
        return tuple(size if isinstance(size, int) else None for size in sizes)

    def dtype(self, node: fx.Node) -> torch.dtype:
        """Return a node's element type."""
        return node.meta["val"].dtype

    def fix_batch(self, batch: int) -> Graph:
        """Return a copy whose open batch size is fixed."""
        fixed = self.copy()
        fixed.inputs = [
            InputSpec(s.name, tuple(batch if d is None else d for d in s.shape), s.dtype)
            for s in self.inputs
        ]
        return fixed.infer()

    def copy(self) -> Graph:
        """Return an independent copy: nodes, tensors and history."""
        return Graph(
            copy.deepcopy(self.module),
            self.level,
            list(self.inputs),
            copy.deepcopy(self.structure),
            list(self.history),
            copy.deepcopy(self.annotations),
            list(self.output_names) if self.output_names is not None else None,
        )

    def fingerprint(self) -> str:
        """Return a digest of nodes, tensors and annotations; equal graphs have equal ones."""
        from .fingerprint import graph_fingerprint

        return graph_fingerprint(self)

    def text(self) -> str:
        """Return the readable form: one node a line (see `printer`)."""
        from .printer import graph_text

        return graph_text(self)

    def __str__(self) -> str:
        return self.text()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph to one file, without pickle (see `serialize`)."""
        from .serialize import save_graph

        save_graph(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Graph:
        """Read a graph written by `save`.

        Raises:
            ModelError: The file is not a graph, or is damaged.
        """
        from .serialize import load_graph

        return load_graph(path)

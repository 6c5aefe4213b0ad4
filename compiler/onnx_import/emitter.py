"""Writing nodes into a graph, with shapes known at once and constants computed at once."""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from planish.ir.errors import ModelError, OperatorError, first_line
from planish.ir.graph import Graph
from planish.ir.infer import Inference
from planish.ir.origin import Origin
from planish.ir.signature import InputSpec

from .quantized_constants import channel_axis, moved
from .values import Constant, Operand, QuantizedConstant

aten = torch.ops.aten

# Bytes that constants computed at import may take together, beside a multiple of the weights'.
FOLDING_BUDGET = 1 << 30
# Multiply-accumulates that one operator on constants may take at import.
FOLDING_MACS = 1 << 28
# Nodes that one model may become: unrolled loops of absurd length end here.
MOST_NODES = 200_000

# Entries of one tensor.
MOST_ENTRIES = 1 << 31

_PRODUCTS = (aten.matmul.default, aten.linear.default, aten.einsum.default)
_CONVOLUTIONS = ("conv", "_conv", "upsample", "im2col")


class OpenSizeError(OperatorError):
    """An operator that doesn't allow an open batch."""


class Emitter:
    """Builds a graph node by node.

    Attributes:
        graph: What is built.
        fresh: The nodes emitted since the list was last emptied.
        where: The ONNX node at work, in messages.
        name: What to name constants after that are made now.
        budget: Bytes that constants computed from here on may take together.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.fresh: list[fx.Node] = []
        self.where = ""
        self.name = "constant"
        self._inference = Inference()
        self._stored: dict[int, fx.Node] = {}
        self._kept: list[Constant] = []  # so that an id is not used twice
        self._names = _Names(reserved=dir(graph.module))
        self._inputs = _Names(reserved=keyword.kwlist)
        self._placeholders: dict[fx.Node, str] = {}
        self._sizes: dict[tuple[fx.Node, int], int | fx.Node] = {}
        self._parameters: dict[tuple[str, bytes, bytes], tuple[Constant, Constant]] = {}
        self.budget = FOLDING_BUDGET
        self._count = 0

    def placeholder(self, spec: InputSpec) -> fx.Node:
        """Add an input."""
        # The name is one of generated Python code; the ONNX name stays in the specification.
        node = self.graph.fx.placeholder(self._inputs.free(spec.name.replace(".", "_")))
        try:
            self._inference.placeholder(node, spec)
        except RuntimeError as error:
            raise ModelError(f"an input takes too much memory: {spec}") from error
        self._placeholders[node] = spec.name
        return node

    def sources(self, node: fx.Node) -> list[str]:
        """Return the names of the inputs that a node is computed from."""
        seen, waiting = {node}, [node]
        while waiting:
            fresh = set(waiting.pop().all_input_nodes) - seen
            seen |= fresh
            waiting += fresh
        return [name for placeholder, name in self._placeholders.items() if placeholder in seen]

    def value(self, operand: Operand | int | float | None) -> Any:
        """Return an operand's tensor (without data, for a node) or size."""
        if isinstance(operand, Constant):
            return operand.tensor
        return self._inference.values[operand] if isinstance(operand, fx.Node) else operand

    def emit(self, target: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Compute an operator on constants now; else add a node.

        Returns:
            A node; or for constants a `Constant`, or a tuple of them.

        Raises:
            OperatorError: The operator rejects its operands, or an open batch.
        """
        if not any(isinstance(leaf, fx.Node) for leaf in pytree.tree_leaves((args, options))):
            folded = self._fold(target, args, options)
            if folded is not None:
                return folded
        return self._call(target, args, options)

    def pieces(
        self, target: Callable[..., Any], count: int, *args: Any, **options: Any
    ) -> list[Any]:
        """As `emit`, for an operator with `count` results."""
        made = self.emit(target, *args, **options)
        if isinstance(made, tuple):
            return list(made)
        return [self._call(operator.getitem, (made, index), {}) for index in range(count)]

    def size(self, operand: Operand, axis: int) -> int | fx.Node:
        """Return one size of an operand: a number, or a node that reads the open batch."""
        found = self.value(operand).shape[axis]
        if isinstance(found, int) or isinstance(operand, Constant):
            return int(found)
        key = (operand, axis % self.value(operand).dim())
        if key not in self._sizes:
            self._sizes[key] = self._call(aten.sym_size.int, key, {})
        return self._sizes[key]

    def emit_size(self, function: Callable[..., Any], *items: int | fx.Node) -> int | fx.Node:
        """Add arithmetic on sizes; a number where the result doesn't depend on the batch."""
        node = self._call(function, items, {})
        value = self.value(node)
        return value if isinstance(value, int) else node

    def stored(self, constant: Constant) -> fx.Node:
        """Return the node that reads a constant; stores it on its first use."""
        known = self._stored.get(id(constant))
        if known is not None:
            return known
        name = self._names.free(constant.name)
        trainable = constant.trainable and constant.tensor.is_floating_point()
        self.graph.set_attribute(name, constant.tensor, trainable=trainable)
        node = self.graph.fx.get_attr(name)
        self._inference.stored(node, self.graph.attribute(name))
        if isinstance(constant, QuantizedConstant):
            node = self._fake_quantized(constant, node)
        self._stored[id(constant)] = node
        self._kept.append(constant)
        return node

    def parameters(
        self, scale: torch.Tensor, zero_point: torch.Tensor, name: str
    ) -> tuple[Constant, Constant]:
        """Return scale and zero point to be stored; equal ones of one name are shared."""
        key = (name, scale.numpy().tobytes(), zero_point.numpy().tobytes())
        if key not in self._parameters:
            stem = name.removesuffix(".scale").removesuffix("_scale")
            mark = "." if name.endswith(".scale") else "_"
            self._parameters[key] = (
                Constant(scale, f"{stem}{mark}scale"),
                Constant(zero_point, f"{stem}{mark}zero_point"),
            )
        return self._parameters[key]

    def _fake_quantized(self, weight: QuantizedConstant, node: fx.Node) -> fx.Node:
        """Put a fake_quantize behind a stored weight; one of irregular scales stays as it is."""
        found = channel_axis(weight)
        if found is None:
            return node
        axis, scale, zero_point = found
        name = str(node.target)
        parameters = (Constant(scale, f"{name}_scale"), Constant(zero_point, f"{name}_zero_point"))
        target = torch.ops.planish.fake_quantize.default
        return self._call(target, (node, *parameters, axis, weight.lo, weight.hi), {})

    def _call(self, target: Callable[..., Any], args: Any, options: Any) -> fx.Node:
        args, options = pytree.tree_map_only(Constant, self.stored, (args, options))
        node = self.graph.fx.call_function(target, args, options)
        node.meta["origin"] = Origin(self.where)
        self._count += 1
        if self._count > MOST_NODES:
            raise OperatorError(
                f"the model becomes more than {MOST_NODES} operators", where=self.where
            )
        try:
            self._inference.call(node)
        except ModelError as error:
            self.graph.fx.erase_node(node)
            kind = OpenSizeError if self._reads_open_size(args, options) else OperatorError
            raise kind(error.what, where=self.where) from error
        self._check_size(self.value(node))
        environment = self._inference.mode.shape_env
        if environment is not None and environment.replacements:
            raise OpenSizeError(f"{target} allows no open batch here", where=self.where)
        self.fresh.append(node)
        return node

    def _check_size(self, value: Any) -> None:
        """Refuse a tensor that no machine holds, where its size is known."""
        for tensor in pytree.tree_leaves(value):
            known = isinstance(tensor, torch.Tensor) and isinstance(tensor.numel(), int)
            if known and tensor.numel() > MOST_ENTRIES:
                raise OperatorError(
                    f"a tensor of shape {list(tensor.shape)} is computed",
                    where=self.where,
                    cure="its size looks like damage; export the model again",
                )

    def _reads_open_size(self, args: Any, options: Any) -> bool:
        found: list[bool] = []

        def look(node: fx.Node) -> fx.Node:
            value = self._inference.values[node]
            sizes = value.shape if isinstance(value, torch.Tensor) else (value,)
            found.append(any(isinstance(size, torch.SymInt) for size in sizes))
            return node

        map_arg((args, options), look)
        return any(found)

    def _fold(self, target: Callable[..., Any], args: Any, options: Any) -> Any:
        """Return the result on constants; None where it is too large or too long to compute."""
        plain = pytree.tree_map_only(Constant, lambda c: c.tensor, (args, options))
        sources = [c for c in pytree.tree_leaves((args, options)) if isinstance(c, Constant)]
        cost = self._folding_cost(target, *plain)
        if cost is None:
            return None
        if cost > self.budget:
            raise OperatorError(
                f"a constant of {cost} bytes is computed, beside the model's other constants",
                where=self.where,
                cure="its size looks like damage; export the model again",
            )
        self.budget -= cost
        try:
            with torch.no_grad():
                made = moved(target, args, options) or target(*plain[0], **plain[1])
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise OperatorError(first_line(error), where=self.where) from error
        if isinstance(made, QuantizedConstant):
            return made
        trainable = any(source.trainable for source in sources)

        def wrap(tensor: torch.Tensor) -> Constant:
            return Constant(tensor, self.name, trainable)

        return wrap(made) if isinstance(made, torch.Tensor) else tuple(map(wrap, made))

    def _folding_cost(self, target: Any, args: Any, options: Any) -> int | None:
        """Return the bytes that a result takes, by its shape alone; None where it is not folded."""
        name = str(getattr(target, "__name__", target))
        if name.startswith(_CONVOLUTIONS):
            return None
        mode = FakeTensorMode()
        try:
            with mode, torch.no_grad():
                fakes = pytree.tree_map_only(torch.Tensor, mode.from_tensor, (args, options))
                results = pytree.tree_leaves(target(*fakes[0], **fakes[1]))
        except (RuntimeError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise OperatorError(first_line(error), where=self.where) from error
        cost = sum(result.numel() * result.element_size() for result in results)
        if target in _PRODUCTS:
            inputs = [t for t in pytree.tree_leaves(args) if isinstance(t, torch.Tensor)]
            inner = max((t.shape[-1] for t in inputs if t.dim()), default=1)
            if results[0].numel() * inner > FOLDING_MACS:
                return None
        return cost


class _Names:
    """Names for tensors and inputs: like ONNX's where Python allows it, each used once."""

    def __init__(self, reserved: Sequence[str]) -> None:
        self._reserved = frozenset(reserved)
        self._taken: set[str] = set()

    def free(self, name: str) -> str:
        wanted = ".".join(
            self._part(part) for part in re.sub(r"[^A-Za-z0-9_.]", "_", name)[:200].split(".")
        )
        unique, count = wanted, 0
        while unique in self._taken:
            count += 1
            unique = f"{wanted}_{count}"
        pieces = unique.split(".")
        parents = {".".join(pieces[:n]) for n in range(1, len(pieces))}
        if parents & self._taken or f"{unique}." in self._taken:
            return self.free(name.replace(".", "_"))
        # A module's name is remembered with its dot: no tensor may take it.
        self._taken.update({unique, *(f"{parent}." for parent in parents)})
        return unique

    def _part(self, part: str) -> str:
        plain = not part or part[0].isdigit() or part.startswith("_") or part in self._reserved
        return f"v_{part}" if plain else part

"""What a converter is given: one ONNX node, its inputs as values, its attributes, an emitter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_graphsurgeon as gs
import torch
from torch import fx

from planish.ir.errors import OperatorError, PlanishError

from .emitter import Emitter, OpenSizeError
from .values import Constant, Operand, Quantized, Sizes, Value


class NeedsConstantError(OperatorError):
    """An input that must be known at import is computed.

    Attributes:
        node: The node that computes it.
        inputs: The model's inputs that it is computed from.
    """

    def __init__(self, what: str, *, where: str, node: fx.Node, inputs: list[str]) -> None:
        named = ", ".join(map(repr, inputs))
        cure = f"fix {named}: import_onnx(..., constants={{name: array}})"
        super().__init__(what, where=where, cure=cure)
        self.node = node
        self.inputs = inputs


@dataclass
class Call:
    """One ONNX node to convert.

    Attributes:
        operator: Its type: "Conv".
        name: Its name, or one made of its type and position.
        opset: The version of its domain that the model uses.
        inputs: The value of each input; None for one that is left out.
        output_names: The name of each output; "" for one that nobody wants.
        attributes: By name: int, float, str, lists of them; tensors and graphs as graphsurgeon's.
        emitter: Where nodes go.
    """

    operator: str
    name: str
    opset: int
    inputs: list[Value | None]
    output_names: list[str]
    attributes: dict[str, Any]
    emitter: Emitter
    domain: str = ""
    read_tensor: Callable[[Any], torch.Tensor] | None = field(default=None, repr=False)

    # -- errors ---------------------------------------------------------------------------------
    @property
    def where(self) -> str:
        """The node, in messages."""
        return f"{self.operator} {self.name!r}"

    def refuse(self, reason: str, cure: str | None = None) -> OperatorError:
        """Return the error that this node can't be imported, to be raised."""
        return OperatorError(f"{self.operator} {reason}", where=f"node {self.name!r}", cure=cure)

    # -- attributes -----------------------------------------------------------------------------
    def integer(self, name: str, default: int | None = None) -> int:
        """Return an integer attribute."""
        return self._attribute(name, default, int, "an integer")

    def flag(self, name: str, default: bool = False) -> bool:
        """Return an integer attribute that is 0 or 1."""
        return bool(self.integer(name, int(default)))

    def number(self, name: str, default: float | None = None) -> float:
        """Return a float attribute."""
        return self._attribute(name, default, float, "a float")

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string attribute."""
        return self._attribute(name, default, str, "a string")

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """Return an attribute that is a list of integers."""
        found = list(self._attribute(name, default, (list, tuple), "a list"))
        if not all(isinstance(item, int) for item in found):
            raise self.refuse(f"has an attribute {name!r} that is no list of integers")
        return found

    def numbers(self, name: str, default: Sequence[float] | None = None) -> list[float]:
        """Return an attribute that is a list of floats."""
        found = list(self._attribute(name, default, (list, tuple), "a list"))
        if not all(isinstance(item, float | int) for item in found):
            raise self.refuse(f"has an attribute {name!r} that is no list of floats")
        return [float(item) for item in found]

    def texts(self, name: str, default: Sequence[str]) -> list[str]:
        """Return an attribute that is a list of strings."""
        found = list(self._attribute(name, default, (list, tuple), "a list"))
        if not all(isinstance(item, str) for item in found):
            raise self.refuse(f"has an attribute {name!r} that is no list of strings")
        return found

    def _attribute(self, name: str, default: Any, kind: Any, label: str) -> Any:
        if name not in self.attributes:
            if default is None:
                raise self.refuse(f"lacks its attribute {name!r}")
            return default
        found = self.attributes[name]
        if isinstance(found, bool) or not isinstance(found, kind):
            if kind is float and isinstance(found, int):
                return float(found)
            raise self.refuse(f"has an attribute {name!r} that is not {label}")
        return found

    def tensor_attribute(self, name: str) -> torch.Tensor:
        """Return an attribute that is a tensor."""
        found = self.attributes.get(name)
        if not isinstance(found, gs.Constant) or self.read_tensor is None:
            raise self.refuse(f"has no tensor as its attribute {name!r}")
        return self.read_tensor(found)

    # -- inputs ---------------------------------------------------------------------------------
    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def wants(self, index: int) -> bool:
        """Whether somebody reads an output."""
        return index < len(self.output_names) and bool(self.output_names[index])

    def value(self, index: int) -> Value:
        """Return an input as it is."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise self.refuse(f"lacks its input {index}")
        return found

    def operand(self, index: int) -> Operand:
        """Return an input as a tensor to compute on."""
        found = self.value(index)
        if isinstance(found, Sizes):
            return self.tensor_of(found)
        if isinstance(found, Quantized):
            raise self.refuse(
                f"reads integers that QuantizeLinear made (its input {index})",
                cure="such models need DequantizeLinear before this operator",
            )
        return found

    def operands(self) -> list[Operand]:
        """Return all inputs as tensors."""
        return [self.operand(index) for index in range(len(self.inputs))]

    def parameter(self, index: int) -> Operand:
        """Return an input as a weight: it becomes trainable where it is a float constant."""
        found = self.operand(index)
        if isinstance(found, Constant) and not found.trainable and found.tensor.is_floating_point():
            found = Constant(found.tensor, found.name, trainable=True)
            self.inputs[index] = found
        return found

    def buffer(self, index: int) -> Operand:
        """Return an input as a stored tensor that isn't trained: running statistics."""
        found = self.operand(index)
        if isinstance(found, Constant) and found.trainable:
            found = Constant(found.tensor, found.name, trainable=False)
        return found

    def constant(self, index: int) -> torch.Tensor:
        """Return the values of an input that must be known.

        Raises:
            NeedsConstantError: It is computed from the model's inputs.
        """
        found = self.value(index)
        if isinstance(found, Constant):
            return found.tensor
        if isinstance(found, Sizes):
            raise OpenSizeError(
                f"{self.operator} needs the values of its input {index}, which depend on the batch",
                where=f"node {self.name!r}",
            )
        node = found.node if isinstance(found, Quantized) else found
        raise NeedsConstantError(
            f"{self.operator} needs the values of its input {index} at import; they are computed",
            where=f"node {self.name!r}",
            node=node,
            inputs=self.emitter.sources(node),
        )

    def known(self, index: int) -> bool:
        """Whether an input's values are known."""
        return self.has(index) and isinstance(self.inputs[index], Constant)

    def whole(self, index: int) -> list[int]:
        """Return a known input's values as a flat list of integers."""
        tensor = self.constant(index)
        if tensor.is_floating_point() or tensor.is_complex():
            raise self.refuse(f"needs integers as its input {index}")
        if tensor.numel() > 1 << 16:
            raise self.refuse(f"has {tensor.numel()} entries in its input {index}")
        return [int(item) for item in tensor.reshape(-1).tolist()]

    def real(self, index: int) -> float:
        """Return the one value of a known input."""
        tensor = self.constant(index)
        if tensor.numel() != 1:
            raise self.refuse(f"needs one number as its input {index}")
        return tensor.reshape(()).item()

    def sizes(self, index: int) -> list[int | fx.Node]:
        """Return an input that holds sizes: numbers, and nodes that read the open batch."""
        found = self.value(index)
        return list(found.items) if isinstance(found, Sizes) else list(self.whole(index))

    # -- shapes ---------------------------------------------------------------------------------
    def shape(self, operand: Operand) -> list[int | None]:
        """Return an operand's sizes; None for what depends on the open batch."""
        sizes = self.emitter.value(operand).shape
        return [size if isinstance(size, int) else None for size in sizes]

    def fixed(self, operand: Operand, axis: int) -> int:
        """Return one size, which must not depend on the batch."""
        size = self.emitter.value(operand).shape[axis]
        if not isinstance(size, int):
            raise OpenSizeError(
                f"{self.operator} needs a fixed size on axis {axis}", where=f"node {self.name!r}"
            )
        return size

    def dims(self, operand: Operand) -> list[int | fx.Node]:
        """Return an operand's sizes: numbers, and nodes that read the open batch."""
        return [self.emitter.size(operand, axis) for axis in range(self.rank(operand))]

    def rank(self, operand: Operand) -> int:
        """Return how many axes an operand has."""
        return self.emitter.value(operand).dim()

    def dtype(self, operand: Operand) -> torch.dtype:
        """Return an operand's element type."""
        return self.emitter.value(operand).dtype

    def axis(self, operand: Operand, axis: int) -> int:
        """Return an axis counted from the front; one that doesn't exist is refused."""
        rank = self.rank(operand)
        if not -rank <= axis < max(rank, 1):
            raise self.refuse(f"has no axis {axis} in a tensor of {rank} axes")
        return axis % rank if rank else 0

    def axes(self, operand: Operand, axes: Sequence[int]) -> list[int]:
        """As `axis`, for several, each named once."""
        found = [self.axis(operand, axis) for axis in axes]
        if len(set(found)) != len(found):
            raise self.refuse(f"names an axis twice: {list(axes)}")
        return found

    # -- emitting -------------------------------------------------------------------------------
    def emit(self, target: Any, *args: Any, **options: Any) -> Any:
        """Add an operator; on constants alone it is computed now (see `Emitter.emit`)."""
        return self.emitter.emit(target, *args, **options)

    def pieces(self, target: Any, count: int, *args: Any, **options: Any) -> list[Any]:
        """Add an operator with several results."""
        return self.emitter.pieces(target, count, *args, **options)

    def make(self, tensor: torch.Tensor, suffix: str = "") -> Constant:
        """Return a constant made by this node."""
        return Constant(tensor, f"{self.name}.{suffix}" if suffix else self.name)

    def tensor_of(self, sizes: Sizes) -> Operand:
        """Return sizes as a tensor; only where none depends on the batch."""
        if any(isinstance(item, fx.Node) for item in sizes.items):
            raise OpenSizeError(
                f"{self.operator} computes on sizes that depend on the batch",
                where=f"node {self.name!r}",
            )
        items = torch.tensor(sizes.items, dtype=torch.int64)
        return self.make(items.reshape(()) if sizes.scalar else items)

    def with_operator(self, error: PlanishError) -> OperatorError:
        """Return an error of an operator's own with this node's name in it."""
        made = OperatorError(
            f"{self.operator} can't be imported: {error.what}",
            where=f"node {self.name!r}",
            cure=error.cure,
        )
        return made

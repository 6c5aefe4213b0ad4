"""The ONNX graph under construction: names, initializers, nodes."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import fx

from planish.ir.errors import ModelError, OperatorError
from planish.ir.graph import Graph
from planish.ir.ops import row
from planish.ir.origin import get_origin

ELEMENT_TYPES: dict[torch.dtype, int] = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.uint8: TensorProto.UINT8,
    torch.int8: TensorProto.INT8,
    torch.uint16: TensorProto.UINT16,
    torch.int16: TensorProto.INT16,
    torch.int32: TensorProto.INT32,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
}
# What graphs with an open batch compute on sizes, outside the operator table.
_ON_SIZES: dict[Any, str] = {
    operator.add: "Add",
    operator.sub: "Sub",
    operator.mul: "Mul",
    operator.floordiv: "Div",
}
_PROTOBUF_LIMIT = 2**31 - 1


def element_type(dtype: torch.dtype) -> int:
    """Return ONNX's number of an element type.

    Raises:
        ModelError: ONNX has none.
    """
    if dtype not in ELEMENT_TYPES:
        raise ModelError(f"ONNX has no element type for {dtype}")
    return ELEMENT_TYPES[dtype]


def refused(node: fx.Node, reason: str) -> OperatorError:
    """Return the error for a node that ONNX can't express."""
    return OperatorError(
        f"{row(node).name} {reason}",
        where=f"node {node.name!r}, {get_origin(node)}",
        cure="leave it out of the exported model, or write it with other operators",
    )


class Writer:
    """Collects nodes and initializers under unique names.

    Attributes:
        graph: Whose nodes are written.
        opset: Version of the operator set that is written.
        nodes: In execution order.
        values: The ONNX value, or the values, of each graph node that was written.
    """

    def __init__(self, graph: Graph, opset: int, reserved: Iterable[str]) -> None:
        self.graph = graph
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.values: dict[fx.Node, str | tuple[str, ...]] = {}
        self._stored: dict[str, str] = {}
        self._initializers: dict[str, TensorProto] = {}
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._taken = set(reserved)
        self._origins: set[str] = set()
        self._bytes = 0

    @property
    def initializers(self) -> list[TensorProto]:
        """The stored tensors, in the order of their first use."""
        return list(self._initializers.values())

    def value(self, node: fx.Node) -> str:
        """Return the ONNX value of a node; a stored tensor becomes an initializer on first use."""
        if node.op == "get_attr":
            name = str(node.target)
            if name not in self._stored:
                self._stored[name] = self.store(name, self.graph.attribute(name))
            return self._stored[name]
        found = self.values[node]
        assert isinstance(found, str), node
        return found

    def stored_transposed(self, name: str) -> str:
        """Return a stored matrix as an initializer that holds its transpose."""
        key = f"{name}^T"
        if key not in self._stored:
            self._stored[key] = self.store(name, self.graph.attribute(name).t())
        return self._stored[key]

    def unique(self, wanted: str) -> str:
        """Return `wanted`, or `wanted_1`, `wanted_2`, ... where that is taken; it is then taken."""
        return _unique(wanted, self._taken)

    def store(self, name: str, array: NDArray[Any] | torch.Tensor) -> str:
        """Add an initializer under this name or, where it is taken, one like it."""
        unique = self.unique(name)
        array = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
        self._bytes += array.nbytes
        if self._bytes > _PROTOBUF_LIMIT:
            raise ModelError(
                "the model's tensors pass 2 GB, more than one ONNX file can hold",
                cure="quantize it first, or export its parts",
            )
        # Not np.ascontiguousarray: it gives scalars an axis, and runtimes fuse scalar scales only.
        self._initializers[unique] = numpy_helper.from_array(np.array(array, order="C"), unique)
        return unique

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Return an initializer with these values; equal ones are stored once."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self.store(name, array)
        return self._shared[key]

    def add(
        self,
        operator_type: str,
        inputs: Sequence[str],
        source: fx.Node,
        *,
        output: str | None = None,
        outputs: int = 1,
        **attributes: Any,
    ) -> list[str]:
        """Add a node named after the origin of a graph node; return its outputs' names."""
        wanted = output or f"{source.name}_{operator_type.lower()}"
        names = [self.unique(wanted) for _ in range(outputs)]
        known = {key: value for key, value in attributes.items() if value is not None}
        label = _unique(f"{get_origin(source).name}/{operator_type}", self._origins)
        node = helper.make_node(operator_type, list(inputs), names, name=label, **known)
        self.nodes.append(node)
        return names

    def rename(self, old: str, new: str, since: int = 0) -> None:
        """Give a value that nodes from `since` on make or read another name."""
        for node in self.nodes[since:]:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == old:
                        names[index] = new

    def name_maker(self, value: str, source: fx.Node) -> None:
        """Give the latest node, if it makes `value`, the origin of a graph node as its name."""
        if self.nodes and value in self.nodes[-1].output:
            self.nodes[-1].name = _unique(get_origin(source).name, self._origins)

    def size(self, value: int | fx.Node, source: fx.Node) -> str:
        """Return an int64 tensor [1] that holds a size: a number, or one read from the batch."""
        if not isinstance(value, fx.Node):
            return self.constant(f"{source.name}_size", np.array([value], np.int64))
        if value not in self.values:
            if value.target not in _ON_SIZES:
                raise ModelError(
                    f"a size computed by {value.target} can't be written as ONNX",
                    where=str(get_origin(value)),
                )
            operands = [self.size(item, source) for item in value.args]  # type: ignore[arg-type]
            self.values[value] = self.add(_ON_SIZES[value.target], operands, value)[0]
        found = self.values[value]
        assert isinstance(found, str)
        return found

    def sizes(self, values: Sequence[int | fx.Node], source: fx.Node) -> str:
        """Return an int64 tensor [n] of sizes."""
        if all(isinstance(value, int) for value in values):
            return self.constant(f"{source.name}_sizes", np.array(values, np.int64))
        parts = [self.size(value, source) for value in values]
        return self.add("Concat", parts, source, axis=0)[0] if len(parts) > 1 else parts[0]


def _unique(wanted: str, taken: set[str]) -> str:
    name, count = wanted, 0
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    taken.add(name)
    return name

"""What an emitter is given: one node of the graph, and the ways to write ONNX nodes for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from planish.ir.errors import OperatorError
from planish.ir.ops import arguments

from .quantization import Quantizer
from .writer import Writer, element_type, refused


class Call:
    """One operator node, its arguments by schema name, and the ONNX graph that it goes to.

    Attributes:
        writer: The ONNX graph.
        quantizer: Writes what is quantized.
        node: In planish's graph.
        arguments: By schema name, defaults filled in.
    """

    def __init__(self, writer: Writer, quantizer: Quantizer, node: fx.Node) -> None:
        self.writer = writer
        self.quantizer = quantizer
        self.node = node
        self.arguments = arguments(node)

    def __getitem__(self, name: str) -> Any:
        """Return an argument as the graph has it."""
        return self.arguments[name]

    @property
    def opset(self) -> int:
        """The operator set that is written."""
        return self.writer.opset

    @property
    def dtype(self) -> torch.dtype:
        """Element type of the result."""
        return self.node.meta["val"].dtype

    def shape(self, name: str) -> list[int | None]:
        """Return the sizes of a tensor argument; None where one depends on the open batch."""
        return sizes_of(self[name])

    def axis(self, name: str, of: str = "self") -> int:
        """Return an argument that names an axis, counted from the front."""
        rank = len(self.shape(of))
        return int(self[name]) % rank if rank else 0

    def value(self, name: str) -> str:
        """Return the ONNX value of a tensor argument; "" for None, ONNX's missing input."""
        found = self[name]
        return "" if found is None else self.writer.value(found)

    def operand(self, name: str, dtype: torch.dtype | None = None) -> str:
        """Return an argument, a tensor or a number, as an ONNX value of `dtype`.

        Args:
            name: In the schema.
            dtype: What to cast it to; None stands for the result's.
        """
        wanted = dtype or self.dtype
        found = self[name]
        if not isinstance(found, fx.Node):
            return self.number(found, wanted)
        value = self.writer.value(found)
        if found.meta["val"].dtype == wanted:
            return value
        return self.op("Cast", value, to=element_type(wanted))

    def number(self, value: float, dtype: torch.dtype | None = None) -> str:
        """Return a scalar constant, by default of the result's element type."""
        array = torch.tensor(value, dtype=dtype or self.dtype).numpy()
        return self.writer.constant(f"{self.node.name}_number", array)

    def integers(self, values: Sequence[int] | int) -> str:
        """Return an int64 constant: [n], or a scalar."""
        return self.writer.constant(f"{self.node.name}_integers", np.array(values, np.int64))

    def sizes(self, values: Sequence[int | fx.Node]) -> str:
        """Return an int64 tensor of sizes, some of which may depend on the open batch."""
        return self.writer.sizes(values, self.node)

    def tensor(self, name: str, value: torch.Tensor) -> str:
        """Return a stored tensor that is no part of the graph."""
        return self.writer.constant(f"{self.node.name}_{name}", value.detach().cpu().numpy())

    def op(self, operator_type: str, *inputs: str, **attributes: Any) -> str:
        """Add an ONNX node with one output; return its name. Missing inputs at the end vanish."""
        return self.ops(operator_type, *inputs, **attributes)[0]

    def ops(
        self, operator_type: str, *inputs: str, outputs: int = 1, **attributes: Any
    ) -> list[str]:
        """Add an ONNX node with several outputs; return their names."""
        given = list(inputs)
        while given and not given[-1]:
            given.pop()
        return self.writer.add(operator_type, given, self.node, outputs=outputs, **attributes)

    def refused(self, reason: str) -> OperatorError:
        """Return the error for what ONNX can't express."""
        return refused(self.node, reason)


def sizes_of(node: fx.Node) -> list[int | None]:
    """Return a node's sizes; None where one depends on the open batch."""
    return [size if isinstance(size, int) else None for size in node.meta["val"].shape]

"""A graph becomes an ONNX model: each node is handed to its operator's emitter, in order."""

from __future__ import annotations

import operator
from typing import Any

import onnx
import torch
from onnx import helper
from torch import fx

import planish
from planish.ir.calling import Structure
from planish.ir.errors import ModelError, OptionError
from planish.ir.graph import Graph
from planish.ir.level import Level
from planish.ir.ops import activations, is_overload, row

from .call import Call
from .quantization import Quantizer
from .registry import emitter
from .writer import Writer, element_type

OLDEST_OPSET = 17


class Exporter:
    """Writes one graph.

    Attributes:
        graph: At the captured, canonical or quantized level.
        writer: The ONNX graph under construction.
        quantizer: What is quantized how; decides on biases and moved integers.
    """

    def __init__(self, graph: Graph, opset: int) -> None:
        newest = onnx.defs.onnx_opset_version()
        if not isinstance(opset, int) or not OLDEST_OPSET <= opset <= newest:
            raise OptionError(
                f"opset {opset!r} can't be written",
                cure=f"choose one of {OLDEST_OPSET} to {newest}",
            )
        if graph.level is Level.INTEGER:
            raise ModelError(
                "an integer graph can't be written as ONNX",
                cure="export the quantized graph, as it was before lower-to-integer",
            )
        self.graph = graph
        self.outputs = output_names(graph)
        inputs = [spec.name for spec in graph.inputs]
        self.writer = Writer(graph, opset, [*inputs, *self.outputs])
        self.quantizer = Quantizer(graph, self.writer)

    def run(self) -> onnx.ModelProto:
        """Return the model."""
        inputs = iter(self.graph.inputs)
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.writer.values[node] = next(inputs).name
            elif node.op == "call_function":
                self._call(node)
        self._name_outputs()
        return self._model()

    def _call(self, node: fx.Node) -> None:
        if node.target is operator.getitem:
            source, index = node.args
            made = self.writer.values[source]  # type: ignore[index]
            assert isinstance(made, tuple)
            self.writer.values[node] = made[index]  # type: ignore[index]
            return
        if not is_overload(node.target):
            return  # arithmetic on sizes: `Writer.size` writes it where it is used
        if self.quantizer.is_redundant(node):
            self.writer.values[node] = self.writer.value(activations(node)[0])
            return
        since = len(self.writer.nodes)
        if row(node).name == "fake_quantize":
            made = self.quantizer.fake_quantize(node)
        else:
            made = emitter(node)(Call(self.writer, self.quantizer, node))
            self.writer.name_maker(made if isinstance(made, str) else made[0], node)
        if isinstance(made, str) and len(self.writer.nodes) > since:
            named = self.writer.unique(node.name)
            self.writer.rename(made, named, since)
            made = named
        self.writer.values[node] = made
        if isinstance(made, str):
            self.writer.values[node] = self.quantizer.moved(node, made)

    def _name_outputs(self) -> None:
        """Give what is returned the outputs' names; what can't be renamed is copied."""
        fixed = {spec.name for spec in self.graph.inputs}
        fixed |= {tensor.name for tensor in self.writer.initializers}
        for node, name in zip(self.graph.outputs, self.outputs, strict=True):
            value = self.writer.value(node)
            if value in fixed or node.op == "get_attr":
                made = helper.make_node("Identity", [value], [name], name=f"{name}_output")
                self.writer.nodes.append(made)
            else:
                self.writer.rename(value, name)
                self.writer.values = {
                    key: name if known == value else known
                    for key, known in self.writer.values.items()
                }
            fixed.add(name)

    def _model(self) -> onnx.ModelProto:
        writer, graph = self.writer, self.graph
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        batch = _batch_symbols(graph)
        inputs = [
            _value_info(spec.name, node.meta["val"], batch)
            for spec, node in zip(graph.inputs, placeholders, strict=True)
        ]
        outputs = [
            _value_info(name, node.meta["val"], batch)
            for name, node in zip(self.outputs, graph.outputs, strict=True)
        ]
        body = helper.make_graph(writer.nodes, "planish", inputs, outputs, writer.initializers)
        imports = [helper.make_opsetid("", writer.opset)]
        return helper.make_model(
            body,
            opset_imports=imports,
            ir_version=helper.find_min_ir_version_for(imports),
            producer_name="planish",
            producer_version=planish.__version__,
        )


def output_names(graph: Graph) -> list[str]:
    """Return the names of the flat outputs.

    They are those of the ONNX model that the graph came from, the keys of the dictionary that the
    model returns, or "output", "output_1", ...
    """
    count = len(graph.outputs)
    given = graph.output_names
    found = list(given) if given and len(given) == count else [""] * count
    if not any(found):
        _keys(graph.structure, "", found)
    names: list[str] = []
    taken = {spec.name for spec in graph.inputs}
    for index, name in enumerate(found):
        wanted = name or ("output" if index == 0 else f"output_{index}")
        unique, number = wanted, 0
        while unique in taken:
            number += 1
            unique = f"{wanted}_{number}"
        taken.add(unique)
        names.append(unique)
    return names


def _keys(structure: Structure, prefix: str, names: list[str]) -> None:
    if isinstance(structure, int):
        names[structure] = prefix
        return
    kind, children = structure
    for index, child in enumerate(children):
        if kind == "dict":
            key, child = child
            _keys(child, f"{prefix}.{key}" if prefix else str(key), names)
        else:
            _keys(child, f"{prefix}.{index}" if prefix else "", names)


def _batch_symbols(graph: Graph) -> set[str]:
    """Return how the open batch is written in shapes."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            found |= {str(s) for s in node.meta["val"].shape if not isinstance(s, int)}
    return found


def _value_info(name: str, value: torch.Tensor, batch: set[str]) -> onnx.ValueInfoProto:
    """Describe an input or output: element type, sizes, the open batch as "batch"."""
    sizes: list[Any] = []
    for size in value.shape:
        symbol = "batch" if str(size) in batch else None
        sizes.append(size if isinstance(size, int) else symbol)
    return helper.make_tensor_value_info(name, element_type(value.dtype), sizes)

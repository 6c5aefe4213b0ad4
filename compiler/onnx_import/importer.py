"""ONNX becomes a graph: each node is handed to its operator's converter, in order."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx
import onnx_graphsurgeon as gs
import torch
from onnx_graphsurgeon.importers.onnx_importer import OnnxImporter
from onnx_graphsurgeon.logger import G_LOGGER
from torch import fx

from planish.ir.errors import ModelError, OperatorError, PlanishError, first_line
from planish.ir.graph import Graph
from planish.ir.level import Level
from planish.ir.origin import Origin
from planish.ir.printer import operator_label

from .call import Call, NeedsConstantError
from .emitter import Emitter, OpenSizeError
from .grids import exact_bias, integers
from .infinities import check_infinities
from .loading import SILENT, Source
from .registry import Converter, converter
from .signature import input_specs
from .tensors import onnx_type, tensor_from_proto
from .values import Constant, Quantized, Sizes, Value

_DEEPEST = 16  # functions that call functions


class Importer:
    """Imports one model."""

    def __init__(self, source: Source) -> None:
        self.source = source
        module = fx.GraphModule(torch.nn.Module(), fx.Graph())
        self.graph = Graph(module, Level.CAPTURED, [], 0)
        self.emitter = Emitter(self.graph)
        self.functions = {
            (function.domain, function.name): function for function in source.proto.functions
        }
        self._constants: dict[str, Constant] = {}
        self._origins: dict[str, int] = {}

    def run(
        self,
        shapes: Mapping[str, Iterable[int | None]],
        constants: Mapping[str, torch.Tensor],
    ) -> Graph:
        """Return the graph at the captured level."""
        with _quiet():
            return self._run(shapes, constants)

    def _run(
        self,
        shapes: Mapping[str, Iterable[int | None]],
        constants: Mapping[str, torch.Tensor],
    ) -> Graph:
        env: dict[str, Value] = {}
        for name, tensor in constants.items():
            env[name] = Constant(tensor, name)
        for spec in input_specs(self.source.proto.graph, shapes, constants):
            self.graph.inputs.append(spec)
            env[spec.name] = self.emitter.placeholder(spec)
        self._nodes(self.source.graph.nodes, env, self.source.opsets, {}, 0)
        outputs = [self._output(value.name, env) for value in self.source.proto.graph.output]
        self.graph.fx.output(outputs)
        check_infinities(self.graph)
        names = [value.name for value in self.source.proto.graph.output]
        many = len(outputs) > 1
        self.graph.structure = ["tuple", list(range(len(outputs)))] if many else 0
        self.graph.output_names = names
        return self.graph.prune_dead().infer()

    def _nodes(
        self,
        nodes: Iterable[gs.Node],
        env: dict[str, Value],
        opsets: Mapping[str, int],
        given: Mapping[str, Any],
        depth: int,
    ) -> None:
        """Convert nodes in order; `given` are the attributes of the function that they are in."""
        for index, node in enumerate(nodes):
            domain = "" if node.domain in (None, "ai.onnx") else node.domain
            call = Call(
                operator=node.op,
                name=node.name or f"{node.op}_{index}",
                opset=opsets.get(domain, 1),
                inputs=[self._input(tensor, env) for tensor in node.inputs],
                output_names=[tensor.name for tensor in node.outputs],
                attributes=_attributes(node, given),
                emitter=self.emitter,
                domain=domain,
                read_tensor=self._tensor,
            )
            made = self._convert(call, depth)
            for name, value in zip(call.output_names, made, strict=False):
                if name and value is not None:
                    env[name] = value

    def _convert(self, call: Call, depth: int) -> list[Any]:
        function = self.functions.get((call.domain, call.operator))
        if function is not None:
            return self._function(call, function, function.opset_import, depth)
        found = converter(call.domain, call.operator, call.opset)
        if found is None:
            spelled = _spelled_out(call)
            if spelled is not None:
                imports = spelled.opset_import or [onnx.helper.make_opsetid("", call.opset)]
                return self._function(call, spelled, imports, depth)
            raise _unknown(call)
        return self._named(call, found)

    def _named(self, call: Call, found: Converter) -> list[Any]:
        """Run a converter; what it emits is named after the ONNX node."""
        emitter = self.emitter
        emitter.fresh, emitter.where, emitter.name = [], call.name, call.name
        try:
            made = _run(call, found)
        except (OpenSizeError, NeedsConstantError):
            raise
        except PlanishError as error:
            named = error.where is not None and call.name in error.where
            raise (
                error if named and call.operator in error.what else call.with_operator(error)
            ) from error
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            MemoryError,
            RecursionError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            # A converter takes the model at its word; a malformed one breaks it anywhere.
            reason = first_line(error)
            raise call.refuse(f"can't be imported as it stands: {reason}") from error
        self._name_nodes(call, made)
        return made

    def _name_nodes(self, call: Call, made: list[Any]) -> None:
        ends = {value.node if isinstance(value, Quantized) else value for value in made}
        for node in self.emitter.fresh:
            label = operator_label(node).split(".")[0]
            name = call.name if node in ends else f"{call.name}.{label}"
            count = self._origins.get(name, 0)
            self._origins[name] = count + 1
            node.meta["origin"] = Origin(f"{name}_{count}" if count else name)

    def _function(
        self, call: Call, function: onnx.FunctionProto, imports: Any, depth: int
    ) -> list[Any]:
        """Convert the body of a function with the values that it is called with."""
        if depth >= _DEEPEST:
            raise call.refuse(f"is a function nested deeper than {_DEEPEST}")
        with G_LOGGER.suppress(SILENT):
            body = OnnxImporter.import_function(_typed(function))
        defaults = {name: value for name, value in body.attrs.items() if value is not None}
        env: dict[str, Value] = {}
        for name, value in zip(function.input, call.inputs, strict=False):
            if value is not None:
                env[name] = value
        opsets = {"": self.source.opsets[""]}
        opsets |= {("" if e.domain == "ai.onnx" else e.domain): int(e.version) for e in imports}
        for index, node in enumerate(body.nodes):
            node.name = f"{call.name}.{node.name or f'{node.op}_{index}'}"
        self._nodes(body.nodes, env, opsets, {**defaults, **call.attributes}, depth + 1)
        return [env.get(name) for name in function.output]

    def _input(self, tensor: Any, env: dict[str, Value]) -> Value | None:
        if not tensor.name or tensor.name in env:
            return env.get(tensor.name) if tensor.name else None
        if isinstance(tensor, gs.Constant):
            if tensor.name not in self._constants:
                values = self._tensor(tensor)
                # Infinities are a mask's, not a weight's.
                trainable = values.is_floating_point() and values.numel() > 1
                trainable = trainable and bool(torch.isfinite(values).all())
                self._constants[tensor.name] = Constant(values, tensor.name, trainable)
            return self._constants[tensor.name]
        return None  # an optional input of the function around, left out

    def _tensor(self, constant: gs.Constant) -> torch.Tensor:
        proto = getattr(constant._values, "tensor", None)
        if not isinstance(proto, onnx.TensorProto):
            raise OperatorError(f"the constant {constant.name!r} is stored sparsely")
        tensor = tensor_from_proto(proto, constant.name or "a constant", self.source.folder)
        # Weights are transposed, joined and scaled on their way into the graph.
        self.emitter.budget += 4 * tensor.nbytes
        return tensor

    def _output(self, name: str, env: dict[str, Value]) -> fx.Node:
        value = env.get(name)
        if value is None:
            tensors: list[Any] = self.source.graph.outputs
            stored = next((t for t in tensors if t.name == name), None)
            value = self._input(stored, env) if stored is not None else None
        if isinstance(value, Constant):
            return self.emitter.stored(value)
        if isinstance(value, Quantized):
            self.emitter.fresh, self.emitter.where = [], name
            return integers(self.emitter, value)
        if isinstance(value, Sizes):
            raise OpenSizeError(f"the output {name!r} is a size that depends on the batch")
        if value is None:
            raise ModelError(f"nothing computes the output {name!r}")
        return value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging what its operators reject: the importer's error says it."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _run(call: Call, found: Converter) -> list[Any]:
    """Run a converter; one that only moves values works on quantized ones too."""
    exact_bias(call)
    first = call.inputs[0] if call.inputs else None
    if not (found.moves and isinstance(first, Quantized)):
        made = found.convert(call)
        return list(made) if isinstance(made, list | tuple) else [made]
    if first.axis is not None:
        raise call.refuse("moves integers with a scale a channel", cure="dequantize them first")
    for index, value in enumerate(call.inputs):
        if isinstance(value, Quantized):
            if not value.same_grid(first):
                raise call.refuse("joins integers of unlike scales", cure="dequantize them first")
            call.inputs[index] = value.node
    _check_moves(call, first)
    made = found.convert(call)
    outputs = list(made) if isinstance(made, list | tuple) else [made]
    moved = len(outputs) if call.operator == "Split" else 1
    rest = (first.scale, first.zero_point, first.dtype)
    return [Quantized(output, *rest) for output in outputs[:moved]] + outputs[moved:]


def _check_moves(call: Call, first: Quantized) -> None:
    """Refuse interpolation between integers; let padding fill with what an integer stands for."""
    if call.operator in ("Resize", "Upsample") and call.text("mode", "nearest") != "nearest":
        raise call.refuse("interpolates between integers", cure="dequantize them first")
    if call.operator == "Pad" and call.text("mode", "constant") == "constant":
        filler = call.constant(2).reshape(()) if call.has(2) else torch.tensor(0)
        call.inputs += [None] * (3 - len(call.inputs))
        call.inputs[2] = call.make((filler.to(torch.float32) - first.zero_point) * first.scale)


def _attributes(node: gs.Node, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node's attributes; inside a function some refer to the function's own."""
    found: dict[str, Any] = {}
    for name, value in node.attrs.items():
        if not isinstance(value, gs.Node.AttributeRef):
            found[name] = value
        elif value.name in given:
            found[name] = given[value.name]
    return found


# The fields of an attribute, and the type that each stands for.
_FIELDS = {"f": 1, "i": 2, "s": 3, "t": 4}


def _typed(function: onnx.FunctionProto) -> onnx.FunctionProto:
    """Return a function whose attributes say their types; some of ONNX's own don't."""
    found = onnx.FunctionProto()
    found.CopyFrom(function)
    for node in found.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.UNDEFINED:
                fields = [kind for name, kind in _FIELDS.items() if attribute.HasField(name)]
                attribute.type = fields[0] if fields else onnx.AttributeProto.INT  # type: ignore[assignment]
    return found


def _spelled_out(call: Call) -> onnx.FunctionProto | None:
    """Return the body that ONNX itself gives an operator in terms of others, if it does."""
    try:
        schema: Any = onnx.defs.get_schema(call.operator, call.opset, call.domain)
    except (onnx.defs.SchemaError, TypeError):  # TypeError: a version beyond 32 bits
        return None
    if schema.has_function:
        return schema.function_body
    if not schema.has_context_dependent_function:
        return None
    # This body depends on the node's attributes and on the types of its inputs.
    node = onnx.NodeProto(op_type=call.operator, domain=call.domain, output=call.output_names)
    node.input.extend(f"input{i}" if call.has(i) else "" for i in range(len(call.inputs)))
    for name, value in call.attributes.items():
        if not isinstance(value, int | float | str | list):
            return None
        node.attribute.append(onnx.helper.make_attribute(name, value))
    types = [_type_of(call, index).SerializeToString() for index in range(len(call.inputs))]
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= call.opset]
    if not versions:
        return None
    body = schema.get_context_dependent_function_with_opset_version(
        max(versions), node.SerializeToString(), types
    )
    return onnx.FunctionProto.FromString(body) if body else None


def _type_of(call: Call, index: int) -> onnx.TypeProto:
    """Return an input's element type and shape in ONNX's terms; nothing for one left out."""
    value = call.inputs[index]
    if value is None:
        return onnx.TypeProto()
    if isinstance(value, Sizes):
        return onnx.helper.make_tensor_type_proto(onnx.TensorProto.INT64, [len(value.items)])
    operand = call.operand(index)
    shape = [size if size is not None else "batch" for size in call.shape(operand)]
    return onnx.helper.make_tensor_type_proto(onnx_type(call.dtype(operand)), shape)


def _unknown(call: Call) -> OperatorError:
    place = f" of domain {call.domain!r}" if call.domain else ""
    if any(isinstance(value, gs.Graph) for value in call.attributes.values()):
        return call.refuse(
            "holds a sub-graph: control flow is not supported",
            cure="export the model without loops and branches",
        )
    return call.refuse(f"{place} of opset {call.opset} is not supported".strip())

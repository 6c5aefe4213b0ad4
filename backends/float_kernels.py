"""TVM's own lowering of a float module into kernel calls of the plan."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
import tvm
from tvm import ir, relax, tirx
from tvm.relax.frontend.torch import from_exported_program

from planish.ir import OperatorError

from .floats.constants import fold_constants
from .floats.converters import converters
from .floats.exact import with_exact_floats
from .floats.kernels import FloatFunction, kernels_of
from .layout import Layout, dense_layout
from .plan import Parameter, Plan, Value
from .target import Target

_CALL_TIR = ir.Op.get("relax.call_tir")


@dataclass(frozen=True)
class Lowered:
    """A float module as kernels.

    Attributes:
        main: The Relax function that calls them.
        functions: What it calls, by TVM's name.
    """

    main: Any
    functions: Mapping[str, FloatFunction]


def lower_module(
    module: torch.fx.GraphModule, samples: tuple[torch.Tensor, ...], target: Target
) -> Lowered:
    """Return a float module whose every operator is a TensorIR function.

    Args:
        module: ATen, takes and returns tensors of static shapes.
        samples: Inputs of the right shapes.
        target: What to compile for.
    """
    relaxed = _lower_relax(module, samples, target)
    functions = {
        variable.name_hint: kernels_of(function, variable.name_hint, target)
        for variable, function in relaxed.functions.items()
        if isinstance(function, tirx.PrimFunc)
    }
    return Lowered(relaxed["main"], functions)


def _lower_relax(
    module: torch.fx.GraphModule, samples: tuple[torch.Tensor, ...], target: Target
) -> Any:
    """Return a float module as a Relax module that calls TensorIR functions alone."""
    with warnings.catch_warnings():
        # torch's own copying of its tree specifications warns of torch's own deprecations.
        warnings.simplefilter("ignore", FutureWarning)
        exported = torch.export.export(module.eval(), samples)
        program = fold_constants(exported.run_decompositions())
        imported = from_exported_program(
            program, custom_convert_map=converters(target), run_ep_decomposition=False
        )
    into_loops = [
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.LegalizeOps(),
    ]
    fused = [
        relax.transform.FoldConstant(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.DeadCodeElimination(),
    ]
    # Of a GPU TVM would choose operators that are threaded already; ours come later, for all alike.
    lowered_for = target.tvm_target if target.capability is None else {"kind": "llvm"}
    with tvm.target.Target(lowered_for):
        loops = with_exact_floats(ir.transform.Sequential(into_loops)(imported))
        return ir.transform.Sequential(fused)(loops)


def append_kernels(lowered: Lowered, inputs: list[Value], plan: Plan, label: str) -> list[Value]:
    """Append a lowered module's kernel calls; return the values of its results.

    Args:
        lowered: What lower_module returned.
        inputs: Where the inputs lie.
        plan: What is filled.
        label: Whose calls they are.

    Raises:
        OperatorError: TVM left an operator without a lowering.
    """
    return _Translator(lowered, inputs, plan, label).run()


@dataclass(frozen=True)
class _Constant(Parameter):
    """A stored tensor: where it lies in the parameter memory, and how."""

    layout: Layout


class _Translator:
    """Walks the bindings of a lowered Relax function."""

    def __init__(self, lowered: Lowered, inputs: list[Value], plan: Plan, label: str) -> None:
        self.lowered, self.plan, self.label = lowered, plan, label
        self.values: dict[Any, Any] = dict(zip(lowered.main.params, inputs, strict=True))

    def run(self) -> list[Value]:
        """Return the values of the function's results."""
        body = self.lowered.main.body
        for block in body.blocks:
            for binding in block.bindings:
                self.values[binding.var] = self._value(binding.value)
        result = self._value(body.body)
        results = result if isinstance(result, list) else [result]
        return [self._own(value) for value in results]

    def _value(self, expression: Any) -> Any:
        if isinstance(expression, ir.Tuple):
            return [self._value(item) for item in expression.fields]
        if isinstance(expression, ir.TupleGetItem):
            return self._value(expression.tuple_value)[expression.index]
        if isinstance(expression, ir.GenericConst):
            return self._constant(expression)
        if expression in self.values:
            return self.values[expression]
        if isinstance(expression, ir.Call) and expression.op == _CALL_TIR:
            return self._call(expression)
        raise OperatorError(
            f"TVM left {getattr(getattr(expression, 'op', None), 'name', expression)} unlowered",
            where=self.label,
        )

    def _constant(self, constant: Any) -> _Constant:
        array = constant.value.numpy()
        name = f"{self.label}/constant{len(self.plan.tensors)}"
        parameter = self.plan.parameter("raw", tensor=self.plan.store(name, array))
        return _Constant(parameter.offset, dense_layout(array.shape, str(array.dtype)))

    def _call(self, call: Any) -> Any:
        name = call.args[0]
        arguments = self._value(call.args[1])
        types: Any = call.ty_args[0]
        many = isinstance(types, ir.TupleType)
        made = [self._new(t, name.name_hint) for t in (_fields(types) if many else [types])]
        function = self.lowered.functions[name.name_hint]
        spare = [
            Value(f"{name.name_hint}_temporary", dense_layout(shape, dtype), dense=True)
            for shape, dtype in function.temporaries
        ]
        pointers = [*arguments, *made, *spare]
        for kernel, operands in function.calls:
            self.plan.call(kernel, [pointers[i] for i in operands], [], self.label)
        return made if many else made[0]

    def _new(self, tensor_type: Any, name: str) -> Value:
        shape = tuple(int(size) for size in tensor_type.shape)
        return Value(name, dense_layout(shape, str(tensor_type.dtype)), dense=True)

    def _own(self, value: Any) -> Value:
        """Return a result as a value; a constant one lies in the parameter memory."""
        if isinstance(value, Value):
            return value
        assert isinstance(value, _Constant), value
        return Value("constant", value.layout, "parameters", offset=value.offset, dense=True)


def _fields(types: Any) -> list[Any]:
    return list(types.fields)

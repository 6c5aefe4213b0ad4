"""TVM's own lowering of a float module into kernel calls of the plan."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
import tvm
import tvm_ffi
from tvm import ir, relax, s_tir, tirx
from tvm.relax.frontend.torch import from_exported_program
from tvm.tirx import IterVar
from tvm.tirx.buffer import buffer_data_pointer_type

from planish.ir import OperatorError

from .floats.constants import fold_constants
from .floats.converters import CONVERTERS, WITHOUT_BLOCKS
from .kernels import close_kernel
from .layout import Layout, dense_layout
from .plan import Parameter, Plan, Value
from .target import Target

_CALL_TIR = ir.Op.get("relax.call_tir")


@dataclass(frozen=True)
class FloatKernel:
    """A TensorIR function from Relax; equal ones are compiled once.

    Attributes:
        function: The function, on raw pointers.
        temporaries: Shape and dtype of the memory that its last parameters point to.
        name: TVM's name of what it computes: "fused_conv2d_add".
        key: Equal for equal functions.
    """

    function: Any
    temporaries: tuple[tuple[tuple[int, ...], str], ...]
    name: str
    key: tuple[str, int]

    def build(self) -> Any:
        """Return the kernel as a function that the entry may call."""
        return close_kernel(self.function, self.name)


def lower_module(
    module: torch.fx.GraphModule, samples: tuple[torch.Tensor, ...], target: Target
) -> Any:
    """Return a float module as a Relax module whose every operator is a TensorIR function.

    Args:
        module: ATen, takes and returns tensors of static shapes.
        samples: Inputs of the right shapes.
        target: What to compile for.
    """
    with warnings.catch_warnings():
        # torch's own copying of its tree specifications warns of torch's own deprecations.
        warnings.simplefilter("ignore", FutureWarning)
        exported = torch.export.export(module.eval(), samples)
        program = fold_constants(exported.run_decompositions())
        imported = from_exported_program(
            program, custom_convert_map=CONVERTERS, run_ep_decomposition=False
        )
    passes = [
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.LegalizeOps(),
        relax.transform.FoldConstant(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.DeadCodeElimination(),
    ]
    with tvm.target.Target(target.tvm_target):
        return ir.transform.Sequential(passes)(imported)


def append_kernels(module: Any, inputs: list[Value], plan: Plan, label: str) -> list[Value]:
    """Append a lowered module's kernel calls; return the values of its results.

    Args:
        module: What lower_module returned.
        inputs: Where the inputs lie.
        plan: What is filled.
        label: Whose calls they are.

    Raises:
        OperatorError: TVM left an operator without a lowering.
    """
    return _Translator(module, inputs, plan, label).run()


@dataclass(frozen=True)
class _Constant(Parameter):
    """A stored tensor: where it lies in the parameter memory, and how."""

    layout: Layout


class _Translator:
    """Walks the bindings of a lowered Relax function."""

    def __init__(self, module: Any, inputs: list[Value], plan: Plan, label: str) -> None:
        self.module, self.plan, self.label = module, plan, label
        self.main = module["main"]
        self.values: dict[Any, Any] = dict(zip(self.main.params, inputs, strict=True))
        self.kernels: dict[Any, FloatKernel] = {}

    def run(self) -> list[Value]:
        """Return the values of the function's results."""
        body = self.main.body
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
        kernel = self._kernel(name)
        spare = [
            Value(f"{kernel.name}_temporary", dense_layout(shape, dtype), dense=True)
            for shape, dtype in kernel.temporaries
        ]
        self.plan.call(kernel, [*arguments, *made, *spare], [], self.label)
        return made if many else made[0]

    def _new(self, tensor_type: Any, name: str) -> Value:
        shape = tuple(int(size) for size in tensor_type.shape)
        return Value(name, dense_layout(shape, str(tensor_type.dtype)), dense=True)

    def _kernel(self, name: Any) -> FloatKernel:
        if name not in self.kernels:
            function = self.module[name]
            if not (function.attrs and WITHOUT_BLOCKS in function.attrs):
                function = _lower_blocks(function)
            function, temporaries = _with_pointers(function)
            key = (name.name_hint, int(tvm_ffi.structural_hash(function)))
            self.kernels[name] = FloatKernel(function, tuple(temporaries), name.name_hint, key)
        return self.kernels[name]

    def _own(self, value: Any) -> Value:
        """Return a result as a value; a constant one lies in the parameter memory."""
        if isinstance(value, Value):
            return value
        assert isinstance(value, _Constant), value
        return Value("constant", value.layout, "parameters", offset=value.offset, dense=True)


def _fields(types: Any) -> list[Any]:
    return list(types.fields)


def _vectorizable(module: Any) -> Any:
    """Return a module whose sums have an output axis innermost, so that LLVM makes vectors of it.

    TVM leaves the summed axes innermost, and LLVM may not reorder a float sum. Each output is still
    summed in the same order.
    """
    try:
        return _reordered(s_tir.Schedule(module))
    except s_tir.ScheduleError:  # a sum of a shape that can't be reordered stays as TVM made it
        return module


def _reordered(schedule: Any) -> Any:
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        variables, loops = schedule.get(block).iter_vars, schedule.get_loops(block)
        if len(variables) != len(loops):
            continue
        pairs = list(zip(variables, loops, strict=True))
        summed = [loop for variable, loop in pairs if variable.iter_type == IterVar.CommReduce]
        outer = [
            loop
            for variable, loop in pairs
            if variable.iter_type == IterVar.DataPar and int(schedule.get(loop).extent) > 1
        ]
        if summed and outer:
            schedule.reorder(*summed, outer[-1])
            schedule.decompose_reduction(block, summed[0])
    return schedule.mod


def _lower_blocks(function: Any) -> Any:
    """Return a function without blocks: plain loops over flat buffers."""
    module = _vectorizable(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}))
    passes = [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
    ]
    lowered = ir.transform.Sequential(passes)(module)["main"]
    return lowered.without_attr("global_symbol")


def _with_pointers(function: Any) -> tuple[Any, list[tuple[tuple[int, ...], str]]]:
    """Return a function on raw pointers, and the temporaries that it takes as its last ones.

    Its own allocations become memory of the workspace: nothing is allocated while a network runs.
    """
    temporaries: list[tuple[tuple[int, ...], str]] = []
    extra: list[Any] = []

    def take(allocation: Any) -> Any:
        buffer = allocation.buffer
        shape = tuple(int(size) for size in buffer.ty.shape)
        temporaries.append((shape, str(buffer.ty.dtype)))
        extra.append(tirx.Var(f"temporary{len(extra)}", buffer_data_pointer_type(buffer)))
        return tirx.DeclBuffer(buffer, data=extra[-1])

    body = tvm_ffi.structural_map(function.body, (tirx.AllocBuffer, take))
    pointers = [tirx.Var(f"{b.name}_data", buffer_data_pointer_type(b)) for b in function.params]
    declared = [
        tirx.DeclBuffer(buffer, data=pointer)
        for buffer, pointer in zip(function.params, pointers, strict=True)
    ]
    body = tirx.SeqStmt([*declared, body])
    return tirx.PrimFunc([*pointers, *extra], body, attrs=function.attrs), temporaries

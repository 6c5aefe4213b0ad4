"""A network for a GPU, run on this machine's processor: the launches and the text are the same.

`EmulatedNetwork(graph, "cuda-sm80")(x)` lowers the graph as `build` does, takes the CUDA C text
that NVIDIA's compiler would get, and runs it in the emulator, launch by launch (see `emulator`). It
is how planish holds its GPU code against the reference where no GPU is; slow, but whole networks
run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish.ir import Graph, ModelError, OptionError
from planish.ir.calling import bind_arguments, nest_structure

from ..builder import fill_plan
from ..inputs import fit_array
from ..packing import aligned_bytes, pack_all
from ..plan import Plan, Value
from ..target import Target
from ..targets import find_target
from .driver import Call
from .emulator import EmulatedLibrary, emulate
from .library import GpuLibrary
from .program import Program, write_program

# What fresh memory holds: a kernel that reads what nobody wrote gives a wrong result.
_ANYTHING = 0xA5


class _Memory:
    """Some of this machine's memory, as a device's."""

    def __init__(self, nbytes: int) -> None:
        self.array = aligned_bytes(nbytes)
        self.array[:] = _ANYTHING
        self.address: int = self.array.ctypes.data


class _Processor:
    """This machine's processor as a device, and as its queue, in which all is done at once."""

    def __init__(self, library: EmulatedLibrary) -> None:
        self._library = library
        self._memories: list[_Memory] = []

    def allocate(self, nbytes: int) -> _Memory:
        """Return memory of this size; kernels may touch what was returned, and nothing else."""
        self._memories.append(_Memory(nbytes))
        return self._memories[-1]

    def queue(self) -> _Processor:
        """Return what does the work."""
        return self

    def wait(self) -> None:
        """Nothing is left to do."""

    def upload(self, memory: _Memory, array: NDArray[Any]) -> None:
        """Copy an array to memory."""
        memory.array[: array.nbytes] = array.reshape(-1).view(np.uint8)

    def download(self, memory: _Memory, array: NDArray[Any]) -> None:
        """Copy memory to an array."""
        array.reshape(-1).view(np.uint8)[:] = memory.array[: array.nbytes]

    def prepare(self, calls: Sequence[Call]) -> Callable[[], None]:
        """Return a function that makes these calls in order."""

        def run() -> None:
            memory = [(each.address, each.array.nbytes) for each in self._memories]
            for call in calls:
                arguments = [ctypes.c_void_p(address) for address in call.addresses]
                sizes = (call.grid, call.block, call.shared)
                self._library.launch(call.kernel, *sizes, arguments, memory=memory)

        return run


class EmulatedNetwork:
    """A graph compiled for a GPU and emulated.

    Attributes:
        plan: Its steps.
        program: The text of its kernels, and their launches.
    """

    def __init__(self, graph: Graph, target: str | Target) -> None:
        """Lower a graph and compile its kernels for this machine.

        Args:
            graph: As `build` takes it; inputs and outputs stay float.
            target: A GPU's, or its name.

        Raises:
            ModelError: It is no graph.
            OptionError: The target is no GPU.
            OperatorError: An operator can't be compiled for it.
            TargetError: There is no C++ compiler.
        """
        if not isinstance(graph, Graph):
            raise ModelError(
                f"a {type(graph).__name__} is no graph", cure="capture the model first"
            )
        chosen = find_target(target)
        if chosen.capability is None:
            raise OptionError(f"target {chosen.name!r} is no GPU", cure="choose one of cuda-...")
        self._structure = graph.structure
        self.plan = Plan(chosen, threads=1)
        inputs, outputs, workspace = fill_plan(graph, self.plan)
        self.program: Program = write_program(self.plan)
        packed = pack_all(self.plan.recipes, self.plan.tensors, self.plan.parameter_bytes)
        self._names = [spec.name for spec in graph.inputs]
        self._inputs = [(value.layout.shape, np.dtype(value.layout.dtype)) for value in inputs]
        self._outputs = [(value.layout.shape, value.layout.dtype) for value in outputs]
        tensors = [_nbytes(value) for value in inputs], [_nbytes(value) for value in outputs]
        device = _Processor(emulate(self.program.text, chosen.cpu))
        setup, launches = self.program.setup, self.program.launches
        self._library = GpuLibrary(device, setup, launches, packed, workspace, tensors)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network.

        Args:
            args: NumPy arrays, or anything with DLPack, in the order of the graph's inputs.
            kwargs: The same by input name.

        Returns:
            NumPy arrays, nested as the graph's outputs are.

        Raises:
            DataError: A wrong count, name, shape or dtype.
        """
        given = bind_arguments(self._names, args, kwargs, "network")
        arrays = [
            fit_array(name, value, *wanted)
            for name, value, wanted in zip(self._names, given, self._inputs, strict=True)
        ]
        results = [np.empty(shape, dtype) for shape, dtype in self._outputs]
        self._library.run(arrays + results)
        return nest_structure(self._structure, results)


def _nbytes(value: Value) -> int:
    layout = value.layout
    return layout.size * np.dtype(layout.dtype).itemsize

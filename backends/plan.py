"""The plan of a compiled network: values in memory, and kernel calls in order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planish.ir.errors import OptionError

from .kernels import Kernel
from .layout import SLACK, Layout, dense_layout
from .packing import pack
from .target import Target

if TYPE_CHECKING:
    from .choosing import Choice, Choices
    from .link import Toolchain
    from .lower.layer import Layer


# Kernels count elements and bytes in 32 bits.
_MOST_BYTES = (1 << 31) - 1


def check_size(what: str, nbytes: int) -> None:
    """Raise OptionError if memory has more bytes than kernels can address."""
    if nbytes > _MOST_BYTES:
        raise OptionError(
            f"{what} takes {nbytes / 1e9:.1f} GB, and kernels address 2",
            cure="compile for a smaller batch or smaller inputs",
        )


@dataclass(eq=False)
class Value:
    """One tensor of the running network.

    Attributes:
        name: For listings.
        layout: How it lies in memory.
        place: "workspace", "input", "output" or "parameters" (a stored tensor).
        index: Which input or output.
        offset: Byte offset in the workspace, once that is planned, or in the parameter memory.
        shift: What is added to the quantized value in memory: 128 for int8.
        dense: Row-major in the tensor's own dtype, as users and TVM's own kernels have it; else in
            the integer region's layout.
        base: The value whose memory this one shows, for a view.
        kept: Whether its memory is its own from call to call, so that its border is written once.
    """

    name: str
    layout: Layout
    place: str = "workspace"
    index: int = 0
    offset: int = 0
    shift: int = 0
    dense: bool = False
    base: Value | None = None
    kept: bool = False

    def __post_init__(self) -> None:
        """Raise OptionError if it has more bytes than kernels can address."""
        check_size(f"tensor {self.name!r}", self.nbytes)

    @property
    def owner(self) -> Value:
        """The value that has the memory."""
        return self.base or self

    def view(self, name: str, layout: Layout) -> Value:
        """Return the same memory seen through another layout; kernels only read it."""
        return Value(name, layout, shift=self.shift, base=self.owner)

    @property
    def nbytes(self) -> int:
        """Bytes in the workspace, with the slack that vector instructions need."""
        return self.layout.size * np.dtype(self.layout.dtype).itemsize + SLACK


@dataclass(frozen=True)
class Parameter:
    """A pointer into the packed parameters."""

    offset: int


@dataclass(frozen=True)
class Pointer:
    """A pointer to a value, some elements after its first one in memory."""

    value: Value
    elements: int = 0


@dataclass(frozen=True)
class Step:
    """One kernel call.

    Attributes:
        kernel: What to call: a Kernel, or a tvm.tirx.PrimFunc made by TVM's own lowering.
        pointers: Pointer arguments, in order.
        scalars: int32 (int) and float32 (float) arguments, after the pointers.
        label: The layer that it belongs to, for listings.
        macs: Multiply-accumulates of the model that it computes, for profiles.
        once: Whether it is made once, before the first call: it writes what all calls find.
    """

    kernel: Any
    pointers: tuple[Pointer | Parameter, ...]
    scalars: tuple[int | float, ...]
    label: str
    macs: int = 0
    once: bool = False

    @property
    def values(self) -> list[Value]:
        """The values whose memory it reads or writes."""
        return [p.value.owner for p in self.pointers if isinstance(p, Pointer)]


@dataclass
class Plan:
    """What lowering fills and code generation reads.

    Attributes:
        target: What to compile for.
        threads: Threads that the artifact may use.
        steps: Kernel calls in order.
        recipes: How the parameter memory is made at load (see `packing`).
        tensors: What the recipes refer to; stored in the artifact.
        parameter_bytes: Size of the parameter memory.
        workspace_bytes: Size of a call's workspace, once its values are placed.
        database: Measured choices of kernels, if there are any.
        toolchain: What links code for other machines than this one.
        layers: Layers in order, and how each is computed.
    """

    target: Target
    threads: int
    steps: list[Step] = field(default_factory=list)
    recipes: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    parameter_bytes: int = SLACK
    workspace_bytes: int = 0
    database: Choices | None = None
    toolchain: Toolchain | None = None
    layers: list[tuple[Layer, Choice]] = field(default_factory=list)
    _known: dict[str, Parameter] = field(default_factory=dict)

    def parameter(self, kind: str, **arguments: Any) -> Parameter:
        """Return a pointer to what this recipe makes; equal recipes share their memory."""
        recipe = {"kind": kind, **arguments}
        key = json.dumps(recipe, sort_keys=True)
        if key not in self._known:
            offset = self.parameter_bytes
            size = pack(recipe, self.tensors).size
            self.recipes.append({**recipe, "offset": offset})
            self.parameter_bytes = offset + -(-(size + SLACK) // 64) * 64
            self._known[key] = Parameter(offset)
        return self._known[key]

    def store(self, name: str, tensor: NDArray[Any]) -> str:
        """Keep a tensor in the artifact under its name; return the name."""
        self.tensors.setdefault(name, np.asarray(tensor, order="C"))
        return name

    def call(
        self,
        kernel: Any,
        pointers: Sequence[Pointer | Parameter | Value],
        scalars: Sequence[int | float],
        label: str,
        macs: int = 0,
        *,
        once: bool = False,
    ) -> None:
        """Append a kernel call; `macs` of the model are its work. See `Step` on `once`."""
        exact = tuple(Pointer(p) if isinstance(p, Value) else p for p in pointers)
        self.steps.append(Step(kernel, exact, tuple(scalars), label, macs, once))

    def parallel(self, work: int, least: int) -> bool:
        """Whether a step of this much work is worth waking other threads for."""
        return self.threads > 1 and work >= least


def scratch(name: str, size: int, dtype: str) -> Value:
    """Make memory of the workspace that one step, or a few, need for themselves."""
    return Value(name, dense_layout((size,), dtype), dense=True)


__all__ = ["Kernel", "Parameter", "Plan", "Pointer", "Step", "Value"]

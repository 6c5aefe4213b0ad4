"""The plan of a compiled network: kernel calls in order, and what they read and write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .choice import Choice, Choices
from .layer import Layer
from .layout import SLACK
from .packing import pack
from .target import Target
from .value import Value

if TYPE_CHECKING:
    from .link import Toolchain


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

"""One layer for a GPU, emulated, and what an exact formula says of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from planish.backends import find_target
from planish.backends.cuda.emulator import EmulatedLibrary, emulate
from planish.backends.cuda.source import Signature, cuda_source
from planish.backends.layer import Layer, Residual
from planish.backends.layout import Layout, row_layout, vector_layout
from planish.backends.lower.strategies import find_strategy
from planish.backends.packing import aligned_bytes, pack_all
from planish.backends.plan import Parameter, Plan, Pointer
from planish.backends.value import Value
from tests.backends.cuda.artifacts import artifact, graph, stub, stub_library

# Fixtures of this folder that stand elsewhere.
__all__ = ["artifact", "graph", "stub", "stub_library"]

# Beyond what a kernel may read and write: its slack, and a margin that must stay as it is.
MARGIN = 256


@dataclass(frozen=True)
class Case:
    """A layer's shape; padding is (top, left, bottom, right)."""

    images: int = 1
    channels: int = 16
    size: tuple[int, int] = (6, 6)
    out: int = 24
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    compact: bool = False
    linear: bool = False
    residual: bool = False
    real: bool = False
    spread: float = 1.0
    extremes: bool = False

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the output."""
        reach = [(k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True)]
        padded = [self.size[i] + self.padding[i] + self.padding[2 + i] for i in (0, 1)]
        height, width = ((padded[i] - reach[i] - 1) // self.stride[i] + 1 for i in (0, 1))
        return height, width


class Emulated:
    """A case with random values: its layer, what a kernel makes of it, and what is right."""

    def __init__(self, case: Case, arch: str, seed: int = 0) -> None:
        self.case, self.arch = case, arch
        self.random = np.random.default_rng(seed)
        self.plan = Plan(find_target(f"cuda-{arch.replace('_', '')}"), 1)
        self.memory: dict[Value, NDArray[Any]] = {}
        self.layer = self._layer()

    def _bytes(self, shape: Sequence[int], low: int, high: int) -> NDArray[np.int64]:
        """Random integers, a tenth of them, or all, the extremes."""
        values = self.random.integers(low, high + 1, shape)
        rare = self.random.random(shape)
        if self.case.extremes:
            return np.where(rare < 0.5, low, high)
        return np.where(rare < 0.05, low, np.where(rare > 0.95, high, values))

    def _value(self, name: str, layout: Layout, filling: int | None = None) -> Value:
        """Make a value whose memory holds anything, or one number."""
        value = Value(name, layout)
        nbytes = value.nbytes + MARGIN
        memory = aligned_bytes(nbytes)
        memory[:] = self.random.integers(0, 256, nbytes) if filling is None else filling
        self.memory[value] = memory
        return value

    def _layer(self) -> Layer:
        case, integer = self.case, self.random.integers
        self.zero_point = int(integer(0, 256))
        x_shape = (case.images, case.channels, *case.size)
        y_shape = (case.images, case.out, *case.out_size)
        dtype = "float32" if case.real else "uint8"
        if case.linear:
            layouts = [row_layout(s[:2], d) for s, d in ((x_shape, "uint8"), (y_shape, dtype))]
        else:
            layouts = [
                vector_layout(x_shape, "uint8", case.padding, case.compact),
                vector_layout(y_shape, dtype),
            ]
        x = self._value("x", layouts[0], None if case.padding == (0, 0, 0, 0) else self.zero_point)
        y = self._value("y", layouts[1])
        self.x = self._bytes(x_shape, 0, 255)
        view(self.memory[x], layouts[0])[...] = self.x.reshape(layouts[0].shape)
        depth = case.channels // case.groups
        self.weight = self._bytes((case.out, depth, *case.kernel), -128, 127)
        self.bias = self._bytes((case.out,), -(2**31), 2**31 - 1)
        if not case.extremes:
            self.bias //= 2**16
        scale = self.random.random(case.out) * case.spread / (60 * self.weight[0].size ** 0.5)
        self.multiplier = scale.astype(np.float32)
        lo, hi = sorted(int(v) for v in integer(0, 256, 2))
        lo, hi = (0, 255) if integer(0, 2) else (lo, hi)
        zero = int(integer(0, 256))
        for name, values, kind in (
            ("weight", self.weight, np.int8),
            ("bias", self.bias, np.int32),
            ("multiplier", self.multiplier, np.float32),
        ):
            self.plan.store(name, values.astype(kind))
        return Layer(
            x, y, "weight", "bias", "multiplier", case.kernel, case.stride, case.dilation,
            case.padding[:2], case.groups, self.zero_point, lo - zero, hi - zero, zero,
            self._residual(layouts[1]) if case.residual else None, "layer", real=case.real,
        )  # fmt: skip

    def _residual(self, layout: Layout) -> Residual:
        integer = self.random.integers
        other = self._value("other", layout)
        lo, hi = sorted(int(v) for v in integer(0, 256, 2))
        zero = int(integer(0, 256))
        own, others = (int(v) for v in integer(-32767, 32768, 2))
        scale = 2.0 ** -int(integer(8, 18))
        offset = int(integer(0, 256))
        return Residual(other, own, others, offset, scale, lo - zero, hi - zero, zero)

    def expected(self) -> NDArray[Any]:
        """Return what the numeric contract says, [images, channels, height, width]."""
        case, layer = self.case, self.layer
        top, left, bottom, right = case.padding
        x = np.pad(self.x - self.zero_point, ((0, 0), (0, 0), (top, bottom), (left, right)))
        sums = torch.nn.functional.conv2d(
            *(torch.from_numpy(v.astype(np.float64)) for v in (x, self.weight)),
            stride=case.stride, dilation=case.dilation, groups=case.groups,
        )  # fmt: skip
        totals = sums.numpy().astype(np.int64) + self.bias[:, None, None]
        totals = totals.astype(np.int32).astype(np.float32)
        products = totals * self.multiplier[:, None, None]
        if case.real:
            return products
        results = np.rint(products).clip(layer.lo, layer.hi).astype(np.int64)
        if layer.residual is None:
            return results + layer.zero_point
        r = layer.residual
        other = view(self.memory[r.other], r.other.layout).reshape(results.shape).astype(np.int64)
        total = results * r.self_factor + (other - r.other_zero_point) * r.other_factor
        scaled = np.rint(total.astype(np.float32) * np.float32(r.scale)).clip(r.lo, r.hi)
        return scaled.astype(np.int64) + r.zero_point

    def emit(self, strategy: str, knobs: Mapping[str, Any] | None = None) -> "Emulated":
        """Append a strategy's steps, with its first knobs unless others are given."""
        found = find_strategy(strategy)
        assert found.fits(self.layer, self.plan)
        found.emit(self.layer, self.plan, knobs or found.knobs(self.layer, self.plan)[0])
        return self

    def launch(
        self, library: EmulatedLibrary, kernels: Sequence[tuple[str, Signature]], backwards: bool
    ) -> NDArray[Any]:
        """Run the plan's steps; return the result as `expected` does."""
        parameters = pack_all(self.plan.recipes, self.plan.tensors, self.plan.parameter_bytes)
        known = [(m.ctypes.data, m.nbytes - MARGIN) for m in self.memory.values()]
        known.append((parameters.ctypes.data, parameters.nbytes))
        before = {value: memory.copy() for value, memory in self.memory.items()}
        for step, (name, signature) in zip(self.plan.steps, kernels, strict=True):
            pointers = [self._address(p, parameters) for p in step.pointers]
            sizes = (signature.grid, signature.block, signature.shared)
            arguments = [*pointers, *step.scalars]
            library.launch(name, *sizes, arguments, memory=known, backwards=backwards)
        for value, memory in self.memory.items():
            kept = memory == before[value]
            assert kept[-MARGIN:].all(), f"written beyond {value.name}"
            assert value is self.layer.y or kept.all(), f"{value.name} is written"
        shape = (self.case.images, self.case.out, *self.case.out_size)
        return view(self.memory[self.layer.y], self.layer.y.layout).reshape(shape)

    def _address(self, pointer: Pointer | Parameter, parameters: NDArray[Any]) -> NDArray[Any]:
        if isinstance(pointer, Parameter):
            return parameters[pointer.offset :]
        itemsize = np.dtype(pointer.value.layout.dtype).itemsize
        return self.memory[pointer.value.owner][pointer.elements * itemsize :]


def view(memory: NDArray[np.uint8], layout: Layout) -> NDArray[Any]:
    """Return memory as the tensor that lies in it."""
    items = memory[: layout.size * np.dtype(layout.dtype).itemsize].view(layout.dtype)
    strides = [step * items.itemsize for step in layout.steps]
    return np.lib.stride_tricks.as_strided(items[layout.base :], layout.shape, strides)


def run_together(
    layers: Sequence[Emulated], *, backwards: bool = False
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield what each layer's kernels give, and what is right; all of them are one text."""
    arch = layers[0].arch
    functions = {
        f"kernel{i}_{j}": step.kernel.function()
        for i, layer in enumerate(layers)
        for j, step in enumerate(layer.plan.steps)
    }
    source, signatures = cuda_source(functions, arch)
    library = emulate(source, arch)
    for i, layer in enumerate(layers):
        names = [f"kernel{i}_{j}" for j in range(len(layer.plan.steps))]
        kernels = [(name, signatures[name]) for name in names]
        yield layer.launch(library, kernels, backwards), layer.expected()


@pytest.fixture(scope="session")
def layer_of() -> Callable[..., Emulated]:
    """Make a layer: `layer_of(arch, seed, **shape)`, the shape as `Case` has it."""

    def make(arch: str, seed: int = 0, **shape: Any) -> Emulated:
        return Emulated(Case(**shape), arch, seed)

    return make


@pytest.fixture(scope="session")
def run_layers() -> Callable[..., Iterator[tuple[NDArray[Any], NDArray[Any]]]]:
    return run_together

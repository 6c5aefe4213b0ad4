"""Integer graphs, built node by node."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import fx

from planish.backends import build, find_target
from planish.backends.cuda.emulated import EmulatedNetwork
from planish.ir import Graph, InputSpec, Level

planish = torch.ops.planish


class GraphBuilder:
    """Builds an integer graph: `x = b.input(...)`, `y = b.call(op, x, ...)`, `b.finish(y)`."""

    def __init__(self, seed: int = 0, level: Level = Level.INTEGER) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.level = level
        self.fx = fx.Graph()
        self.root = torch.nn.Module()
        self.specs: list[InputSpec] = []

    def integers(self, low: int, high: int, shape: Sequence[int]) -> torch.Tensor:
        return torch.randint(low, high + 1, tuple(shape), generator=self.random)

    def integer(self, low: int, high: int) -> int:
        return int(self.integers(low, high, ()))

    def values(self, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
        """Random quantized values, a tenth of them the dtype's extremes."""
        info = torch.iinfo(dtype)
        values = self.integers(info.min, info.max, shape)
        where = torch.rand(tuple(shape), generator=self.random)
        values[where < 0.05], values[where > 0.95] = info.min, info.max
        return values.to(dtype)

    def input(self, dtype: torch.dtype, shape: Sequence[int]) -> fx.Node:
        name = f"x{len(self.specs)}"
        self.specs.append(InputSpec(name, tuple(shape), dtype))
        return self.fx.placeholder(name)

    def stored(self, tensor: torch.Tensor) -> fx.Node:
        name = f"t{len(list(self.root.buffers()))}"
        self.root.register_buffer(name, tensor)
        return self.fx.get_attr(name)

    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return self.fx.call_function(target, args, kwargs)

    def bounds(self, dtype: torch.dtype) -> tuple[int, int, int]:
        """Random (zero_point, lo, hi)."""
        info = torch.iinfo(dtype)
        lo, hi = sorted((self.integer(info.min, info.max), self.integer(info.min, info.max)))
        zero_point = self.integer(info.min, info.max)
        return (zero_point, lo, hi) if self.integer(0, 2) == 0 else (zero_point, info.min, info.max)

    def conv(
        self,
        x: fx.Node,
        shape: Sequence[int],
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
        x_zero: int = 0,
        dtype: torch.dtype = torch.uint8,
        bias: bool = True,
        spread: float = 1.0,
    ) -> fx.Node:
        """A convolution with random weights [out, in/groups, kh, kw] and bounds."""
        weight = self.values(torch.int8, shape).clamp(-127, 127)
        terms = shape[1] * shape[2] * shape[3]
        scale = torch.rand(shape[0], generator=self.random) * spread / (60 * terms**0.5)
        zero_point, lo, hi = self.bounds(dtype)
        stored_bias = (
            self.stored(self.integers(-20000, 20000, (shape[0],)).to(torch.int32)) if bias else None
        )
        return self.call(
            planish.conv2d_i8.default,
            x,
            self.stored(weight),
            stored_bias,
            self.stored(scale.to(torch.float32)),
            list(stride),
            list(padding),
            list(dilation),
            groups,
            x_zero,
            zero_point,
            lo,
            hi,
            dtype,
        )

    @staticmethod
    def compile(graph: Graph, target: str, **options: Any) -> Callable[..., Any]:
        """Compile a graph; for a GPU, which is rarely at hand, to run in the emulator."""
        if find_target(target).capability is not None:
            return EmulatedNetwork(graph, target)
        return build(graph, target, **options)

    def finish(self, *outputs: fx.Node) -> Graph:
        self.fx.output(tuple(outputs))
        module = fx.GraphModule(self.root, self.fx)
        structure = ["tuple", list(range(len(outputs)))]
        return Graph(module, self.level, self.specs, structure).infer()


@pytest.fixture(scope="session")
def builder() -> Callable[..., GraphBuilder]:
    return GraphBuilder

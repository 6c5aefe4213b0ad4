"""Every operator with an integer form: the integers are the simulated values, within one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from planish import capture
from planish.ir import Graph, verify
from planish.ir.coverage import int8_coverage
from planish.passes import Context, FoldBatchNorm, InsertQDQ, LowerToInteger

Tensor = torch.Tensor


class Model(nn.Module):
    """A function of one or two inputs, with stored tensors `p`, `r` and layers by name."""

    def __init__(self, function: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            if isinstance(layer, Tensor):
                layer = nn.Parameter(layer, requires_grad=layer.is_floating_point())
            setattr(self, name, layer)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Return what the function makes of one input, or of two."""
        return self.function(self, x) if y is None else self.function(self, x, y)


def lowered(model: nn.Module, *inputs: Tensor, **options: Any) -> tuple[Graph, Graph]:
    """Return the simulated and the integer graph; nothing may stay in float."""
    graph = capture(model.eval(), inputs)
    folded = FoldBatchNorm().run(graph, Context()).graph
    quantized = InsertQDQ(**options).run(folded, Context(data=[inputs])).graph
    verify(quantized)
    result = LowerToInteger().run(quantized.copy(), Context())
    verify(result.graph)
    assert result.refused == ()
    coverage = int8_coverage(result.graph)
    assert coverage.fallbacks == ()
    assert coverage.share == 1.0
    return quantized, result.graph


def compare(model: nn.Module, *inputs: Tensor, **options: Any) -> Graph:
    quantized, integer = lowered(model, *inputs, **options)
    scales = [float(node.args[1]) for node in integer.outputs]  # type: ignore[arg-type]
    with torch.no_grad():
        simulated, got, real = (g(*inputs) for g in (quantized, integer, model))
    outputs = [r if isinstance(r, tuple) else (r,) for r in (simulated, got, real)]
    for scale, expected, actual, exact in zip(scales, *outputs, strict=True):
        apart = ((expected - actual) / scale).round().abs()
        assert float(apart.max()) <= 1
        assert float((apart > 0).float().mean()) < 0.06
        assert float(((exact - actual) / scale).abs().mean()) < 6
    return integer


def images(*shape: int) -> Tensor:
    return torch.randn(*(shape or (2, 4, 6, 5)), generator=torch.Generator().manual_seed(1))


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def transposed(into: int, out: int, **options: Any) -> Model:
    torch.manual_seed(0)
    return Model(lambda m, x: m.up(x), up=nn.ConvTranspose2d(into, out, **options))


def resized(**options: Any) -> Model:
    return Model(lambda m, x: F.interpolate(x.tanh(), **options))


OPERATORS: dict[str, tuple[Model, tuple[Tensor, ...]]] = {
    "mul": (Model(lambda m, x, y: x * y), (images(), drawn(2, 4, 1, 1))),
    "mul_self": (Model(lambda m, x: x * x), (images(),)),
    "sub": (Model(lambda m, x, y: x - y), (images(), drawn(2, 4, 6, 5) * 3)),
    "sub_relu": (Model(lambda m, x, y: torch.relu(x - y)), (images(), drawn(2, 4, 6, 5))),
    "add_stored": (Model(lambda m, x: x + m.p, p=drawn(4, 1, 1)), (images(),)),
    "mul_stored": (Model(lambda m, x: m.p * x, p=drawn(4, 1, 1)), (images(),)),
    "sub_stored": (Model(lambda m, x: m.p - x, p=drawn(5)), (images(),)),
    "matmul": (Model(lambda m, x, y: x @ y), (images(2, 3, 6, 40), drawn(2, 3, 40, 5))),
    "matmul_stored": (Model(lambda m, x: x @ m.p, p=drawn(4, 5, 7)), (images(),)),
    "matmul_spread": (Model(lambda m, x, y: x @ y), (images(2, 3, 6, 9), drawn(2, 1, 9, 5))),
    "softmax": (Model(lambda m, x: (x * 4).softmax(-1)), (images(),)),
    "softmax_channels": (Model(lambda m, x: x.softmax(1)), (images(),)),
    "layer_norm": (Model(lambda m, x: m.n(x), n=nn.LayerNorm(5)), (images(),)),
    "layer_norm_two_axes": (
        Model(lambda m, x: F.layer_norm(x, [6, 5], m.p, m.r), p=drawn(6, 5), r=drawn(6, 5)),
        (images() + 3,),
    ),
    "mean": (Model(lambda m, x: x.mean(-1)), (images(),)),
    "mean_two": (Model(lambda m, x: x.mean((1, 3), keepdim=True)), (images(),)),
    "sum": (Model(lambda m, x: x.sum(1)), (images(),)),
    "transposed": (transposed(4, 6, kernel_size=3, stride=2, padding=1, output_padding=1), ()),
    "transposed_groups": (transposed(4, 6, kernel_size=(2, 3), groups=2, dilation=2), ()),
    "transposed_depthwise": (transposed(4, 4, kernel_size=2, stride=2, groups=4, bias=False), ()),
    "bilinear": (resized(size=(11, 7), mode="bilinear"), ()),
    "bilinear_corners": (resized(size=(12, 13), mode="bilinear", align_corners=True), ()),
    "bilinear_down": (resized(scale_factor=0.6, mode="bilinear"), ()),
    "nearest": (resized(size=(9, 11)), ()),
    "nearest_factor": (resized(scale_factor=2.0), ()),
    "pad_zero": (Model(lambda m, x: F.pad(torch.tanh(x), [1, 2, 0, 1])), (images(),)),
    "pad_value": (Model(lambda m, x: F.pad(x.tanh(), [1, 0], value=5.0).sigmoid()), (images(),)),
    "pad_maximum": (
        Model(lambda m, x: F.max_pool2d(F.pad(x.tanh(), [0, 1, 0, 1], value=-torch.inf), 3, 2)),
        (images(),),
    ),
    "reflection": (Model(lambda m, x: F.pad(x.tanh(), [1, 2, 1, 0], mode="reflect")), (images(),)),
    "number_first": (Model(lambda m, x: 1.0 - x.sigmoid()), (images(),)),
    "number_over": (Model(lambda m, x: 1.0 / (x.abs() + 0.5)), (images(),)),
    "pow": (Model(lambda m, x: x**2), (images(),)),
    "division": (Model(lambda m, x: x.tanh() / 3), (images(),)),
    "gelu_clamp": (Model(lambda m, x: F.gelu(x).clamp(-0.1, 0.9)), (images(),)),
    "embedding": (
        Model(lambda m, i: m.e(i) + m.p, e=nn.Embedding(30, 8), p=drawn(5, 8)),
        (torch.arange(10).view(2, 5) * 3,),
    ),
    "bias_table": (
        Model(
            lambda m, x: x + m.p[m.r].view(6, 5, 4).permute(2, 0, 1).unsqueeze(0),
            p=drawn(7, 4),
            r=torch.arange(30) % 7,
        ),
        (images(),),
    ),
    "class_token": (
        Model(
            lambda m, x: torch.cat([m.p.expand(x.shape[0], -1, -1), x], 1).tanh(), p=drawn(1, 1, 5)
        ),
        (images(2, 4, 5),),
    ),
    "batch_norm_between": (
        Model(
            lambda m, x: m.c(torch.relu(m.n(x.tanh()))), n=nn.BatchNorm2d(4), c=nn.Conv2d(4, 3, 3)
        ),
        (images(),),
    ),
}


def test_stored_tensors_may_be_named_as_operators_are() -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", drawn(4, 1, 1))
            self.register_buffer("mul", drawn(4, 1, 1))
            self.register_buffer("cumsum", drawn(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            """Operators whose origins are the names of the buffers."""
            mean, mul, cumsum = (self.get_buffer(name) for name in ("mean", "mul", "cumsum"))
            return ((x - mean) * mul).mean(-1, keepdim=True) * cumsum.cumsum(0)

    compare(Normalized(), images())


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name: str, dtype: str) -> None:
    model, inputs = OPERATORS[name]
    compare(model, *(inputs or (images(),)), activation_dtype=dtype)

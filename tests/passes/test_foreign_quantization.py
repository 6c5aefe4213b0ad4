"""Models that other tools quantized: fake-quantize nodes where planish would not place them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from planish import capture
from planish.ir import Graph, Level, PassError, verify
from planish.ir.coverage import int8_coverage
from planish.passes import Context, InsertQDQ, LowerToInteger

Tensor = torch.Tensor
_fake_quantize = torch.ops.planish.fake_quantize.default


class Foreign(nn.Module):
    """Layers, and fake-quantize nodes by hand; `body` is the subclass's.

    Scales and zero points are stored when the model first runs, in the order of use.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.used = 0
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 5)

    def q(
        self,
        x: Tensor,
        scale: float | Tensor,
        zero: int | Tensor = 0,
        lo: int = 0,
        hi: int = 255,
        axis: int | None = None,
    ) -> Tensor:
        """Fake-quantize an activation or a weight."""
        names = (f"scale_{self.used}", f"zero_point_{self.used}")
        self.used += 1
        if not hasattr(self, names[0]):
            scales = torch.as_tensor(scale)
            self.register_buffer(names[0], scales)
            zeros = torch.as_tensor(zero, dtype=torch.int32)
            self.register_buffer(names[1], zeros.expand(scales.shape).contiguous())
        return _fake_quantize(x, *(getattr(self, name) for name in names), axis, lo, hi)

    def forward(self, x: Tensor) -> Any:
        """Return what the body makes of [n, 3, 6, 6]."""
        self.used = 0
        return self.body(x)

    def body(self, x: Tensor) -> Any:
        """Return the network's outputs; every subclass has its own."""
        raise NotImplementedError

    def w(self, layer: nn.Module) -> Tensor:
        """Fake-quantize a weight: int8, symmetric, one scale an output channel."""
        weight = layer.weight
        assert isinstance(weight, Tensor)
        scales = weight.detach().flatten(1).abs().amax(1) / 127
        return self.q(weight, scales, 0, -127, 127, axis=0)


X = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def lower(model: nn.Module, x: Tensor = X) -> tuple[Graph, Graph, dict[str, str]]:
    """Capture and lower; return the graphs, and what stays in float with reasons."""
    model.eval()(x)
    graph = capture(model, x)
    assert graph.level is Level.QUANTIZED
    verify(graph)
    result = LowerToInteger().run(graph.copy(), Context())
    verify(result.graph)
    coverage = int8_coverage(result.graph)
    refused = {r.node: r.reason for r in result.refused}
    assert {f.node for f in coverage.fallbacks} == set(refused)
    return graph, result.graph, refused


def labels(graph: Graph) -> list[str]:
    return [str(node.target).split(".")[1] for node in graph.calls]


def close(graph: Graph, integer: Graph, step: float, x: Tensor = X) -> None:
    with torch.no_grad():
        apart = ((graph(x) - integer(x)) / step).abs()
    assert float(apart.max()) <= 1.01
    assert float((apart > 0.5).float().mean()) < 0.05


class BeforeAndAfterRelu(Foreign):
    def body(self, x: Tensor) -> Tensor:
        """PyTorch and NNCF quantize on both sides of an activation."""
        y = self.q(self.first(self.q(x, 1 / 255)), 0.02, 128)
        y = self.q(torch.relu(y), 0.01)
        return self.q(F.hardswish(self.q(torch.relu(self.q(y, 0.02)), 0.02)), 0.02)


def weighted(model: Foreign) -> Foreign:
    """Quantize the weights in place of the layers' own calls."""
    for name in ("first", "second"):
        layer = getattr(model, name)
        layer.forward = lambda x, layer=layer: torch.conv2d(
            x, model.w(layer), layer.bias, layer.stride, layer.padding
        )
    model.fc.forward = lambda input: F.linear(input, model.w(model.fc), model.fc.bias)
    return model


def test_before_and_after_relu() -> None:
    graph, integer, refused = lower(weighted(BeforeAndAfterRelu()))
    assert refused == {}
    assert labels(integer)[:5] == ["quantize", "conv2d_i8", "table_i8", "table_i8", "clamp_i8"]
    close(graph, integer, 0.02)


class Unquantized(Foreign):
    def body(self, x: Tensor) -> tuple[Tensor, ...]:
        """ONNX Runtime leaves what a float operator reads unquantized."""
        y = self.first(self.q(x, 1 / 255))
        z = self.q(torch.log_softmax(y, 1), 0.05, 255)
        mixed = torch.matmul(z, self.q(z.flip(3), 0.05, 255).permute(0, 1, 3, 2))
        return self.fc(z.mean((2, 3))), self.second(z), mixed


def test_products_whose_result_nobody_quantized() -> None:
    graph, integer, refused = lower(weighted(Unquantized()))
    assert [name.split("_")[0] for name in refused] == ["log", "mean", "fc"]
    assert {"conv2d_dq", "matmul_dq"} <= set(labels(integer))
    with torch.no_grad():
        outputs = zip(graph(X), integer(X), strict=True)
    for expected, got in outputs:
        # A sum that rounds the other way moves one value of log_softmax by a step.
        assert float(((got - expected) ** 2).mean()) < 1e-4 * float((expected**2).mean())


class Concatenation(Foreign):
    def body(self, x: Tensor) -> Tensor:
        """Inputs of a concatenation with unlike scales, and one that is not quantized."""
        x = self.q(x, 1 / 255)
        parts = [self.q(self.first(x), 0.02, 128), self.q(x * 0.5, 0.004), self.first(x)]
        return self.q(torch.relu(self.q(torch.cat(parts, 1), 0.03, 100)), 0.02)


def test_a_concatenation_of_unlike_scales_is_exact() -> None:
    graph, integer, refused = lower(weighted(Concatenation()))
    assert refused == {}
    assert "requantize_i8" not in labels(integer)
    close(graph, integer, 0.02)


class Moved(Foreign):
    def body(self, x: Tensor) -> Tensor:
        """The fake-quantize stands behind what moves, pools, pads and clamps."""
        y = self.first(self.q(x, 1 / 255))
        y = self.q(F.max_pool2d(y, 2).permute(0, 2, 3, 1).clamp(-0.5, 1.0), 0.01, 60)
        y = self.q(y + self.q(y * y, 0.013), 0.02, 20)
        return self.q(F.pad(y, [0, 0, 1, 1], value=0.5), 0.02, 20).flatten(1)


def test_a_quantizer_behind_moves_is_brought_to_the_operator() -> None:
    graph, integer, refused = lower(weighted(Moved()))
    assert refused == {}
    close(graph, integer, 0.02)


class HandWritten(Foreign):
    def body(self, x: Tensor) -> Tensor:
        """A function of one value in several operators, nothing quantized between."""
        y = self.q(self.first(self.q(x, 1 / 255)), 0.02, 128)
        return self.q(y * torch.sigmoid(1.702 * y) - torch.tanh(y) / 3, 0.01, 40)


def test_a_function_of_one_value_is_one_table() -> None:
    graph, integer, refused = lower(weighted(HandWritten()))
    assert refused == {}
    assert labels(integer) == ["quantize", "conv2d_i8", "table_i8", "dequantize"]
    close(graph, integer, 0.02)


class Weight(Foreign):
    def __init__(self, scale: Any, zero: int, lo: int, hi: int, axis: int | None = None) -> None:
        super().__init__()
        self.options = (scale, zero, lo, hi, axis)

    def body(self, x: Tensor) -> Tensor:
        """One convolution whose weight is quantized as asked."""
        weight = self.q(self.first.weight, *self.options)
        y = torch.conv2d(self.q(x, 1 / 255), weight, self.first.bias, padding=1)
        return self.q(y, 0.02, 128)


SCALES = torch.full((4,), 0.002)


@pytest.mark.parametrize(
    "options",
    [
        (0.002, 0, -128, 127),
        (0.002, 128, 0, 255),
        (0.03, 0, -8, 7),
        (SCALES, 128, 0, 255, 0),
        (0.002, 100, 0, 227),
    ],
    ids=["int8", "uint8", "int4", "uint8 by channel", "asymmetric, within int8"],
)
def test_weights_of_other_tools(options: tuple[Any, ...]) -> None:
    graph, integer, refused = lower(Weight(*options))
    assert refused == {}
    close(graph, integer, 0.02)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((0.001, 20, 0, 255), "its weight is asymmetric"),
        ((torch.full((3,), 0.002), 0, -127, 127, 1), "its weight is quantized along axis 1"),
    ],
)
def test_weights_that_stay_in_float(options: tuple[Any, ...], reason: str) -> None:
    graph, integer, refused = lower(Weight(*options))
    assert list(refused) == ["conv2d"]
    assert reason in refused["conv2d"]
    close(graph, integer, 0.02)


class Wide(Foreign):
    def __init__(self, scale: Any, zero: int, lo: int, hi: int, axis: int | None = None) -> None:
        super().__init__()
        self.options = (scale, zero, lo, hi, axis)

    def body(self, x: Tensor) -> Tensor:
        """An activation that no byte holds."""
        y = self.q(self.first(self.q(x, 1 / 255)), *self.options)
        return self.q(self.second(y), 0.02, 128)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((1e-4, 0, -32768, 32767), "to more than 8 bits"),
        ((1e-4, 3000, 0, 65535), "to more than 8 bits"),
        ((torch.full((4,), 0.01), 100, 0, 255, 1), "along an axis"),
    ],
)
def test_activations_that_no_byte_holds(options: tuple[Any, ...], reason: str) -> None:
    graph, integer, refused = lower(weighted(Wide(*options)))
    assert any(reason in each for each in refused.values())
    assert "conv2d_dq" in labels(integer)
    assert "conv2d_i8" not in labels(integer)
    close(graph, integer, 0.02)


class Stored(Foreign):
    def __init__(self) -> None:
        super().__init__()
        self.p, self.table = nn.Parameter(torch.randn(4, 1, 1)), nn.Parameter(torch.randn(3, 4))

    def body(self, x: Tensor) -> Tensor:
        """Stored tensors quantized: an operand, and a moved one."""
        y = self.q(self.first(self.q(x, 1 / 255)), 0.02, 128)
        moved = self.q(self.table, 0.02, 0, -128, 127).permute(1, 0)[:, :1].unsqueeze(-1)
        return self.q(self.q(y * self.q(self.p, 0.01, 128), 0.03, 128) + moved, 0.04, 128)


def test_stored_operands_become_stored_integers() -> None:
    graph, integer, refused = lower(weighted(Stored()))
    assert refused == {}
    assert labels(integer) == ["quantize", "conv2d_i8", "mul_i8", "add_i8", "dequantize"]
    close(graph, integer, 0.04)


def test_insert_qdq_refuses_a_quantized_graph() -> None:
    model = weighted(BeforeAndAfterRelu()).eval()
    model(X)
    graph = capture(model, X)
    with pytest.raises(PassError, match="quantized already"):
        InsertQDQ().run(graph, Context(data=[X]))

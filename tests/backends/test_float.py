"""What stays in float: islands, whole graphs, and how both are reported."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from planish.backends import Reference, build
from planish.ir import Graph, Level, OperatorError, OptionError

planish, aten = torch.ops.planish, torch.ops.aten


def float_graph(builder: Any) -> Graph:
    """conv, relu, residual add, pool, flatten, linear, softmax; two outputs."""
    b = builder(2, Level.CANONICAL)
    x = b.input(torch.float32, (2, 3, 9, 9))
    weight, bias = (b.stored(torch.randn(s, generator=b.random)) for s in ((8, 3, 3, 3), (8,)))
    y = b.call(aten.relu.default, b.call(aten.conv2d.default, x, weight, bias, [1, 1], [1, 1]))
    y = b.call(aten.add.Tensor, y, b.call(aten.sigmoid.default, y))
    y = b.call(aten.adaptive_avg_pool2d.default, y, [1, 1])
    flat = b.call(aten.flatten.using_ints, y, 1)
    logits = b.call(aten.linear.default, flat, b.stored(torch.randn(5, 8, generator=b.random)))
    return b.finish(b.call(aten.softmax.int, logits, -1), flat)


def mixed_graph(builder: Any) -> Graph:
    """int8 conv, float softmax over channels, int8 conv."""
    b = builder(3)
    x = b.input(torch.float32, (1, 8, 9, 7))
    q = b.call(planish.quantize.default, x, 0.02, 3, 0, 255, torch.uint8)
    y = b.conv(q, (8, 8, 3, 3), padding=(1, 1, 1, 1), x_zero=3)
    real = b.call(planish.dequantize.default, y, 0.1, 4)
    island = b.call(aten.softmax.int, real, 1)
    q2 = b.call(planish.quantize.default, island, 0.01, 0, 0, 255, torch.uint8)
    z = b.conv(q2, (8, 8, 3, 3), padding=(1, 1, 1, 1), x_zero=0)
    return b.finish(b.call(planish.dequantize.default, z, 0.1, 4), island)


@pytest.mark.parametrize("threads", [1, 2])
def test_float_graph(builder: Any, threads: int) -> None:
    graph = float_graph(builder)
    artifact = build(graph, "x86-64-v3", threads=threads)
    x = np.random.default_rng(0).normal(size=(2, 3, 9, 9)).astype(np.float32)
    for got, want in zip(artifact(x), Reference(graph)(x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert artifact.coverage["int8_mac_coverage"] == 0
    assert len(artifact.coverage["fallbacks"]) == 8
    assert artifact.coverage["fallbacks"][0]["reason"] == "the graph is canonical: float"


def test_float_island(builder: Any) -> None:
    graph = mixed_graph(builder)
    artifact = build(graph, "x86-64-v3")
    x = np.random.default_rng(0).normal(size=(1, 8, 9, 7)).astype(np.float32)
    for got, want in zip(artifact(x), Reference(graph)(x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert artifact.coverage["int8_mac_coverage"] == 1
    assert artifact.coverage["fallbacks"] == [
        {
            "node": artifact.coverage["fallbacks"][0]["node"],
            "operator": "softmax",
            "reason": "its inputs or outputs are not quantized",
            "macs": 0,
        }
    ]


def test_equal_float_graphs_give_equal_bytes(builder: Any) -> None:
    first, second = (build(float_graph(builder), "x86-64-v3").content for _ in range(2))
    assert first == second


def test_strict(builder: Any) -> None:
    with pytest.raises(OperatorError, match=r"^1 operator stays in float: softmax \(its") as error:
        build(mixed_graph(builder), "x86-64-v3", strict=True)
    assert error.value.cure == "compile with strict=False"
    with pytest.raises(OperatorError, match=r"^\d+ operators stay in float, first ") as error:
        build(float_graph(builder), "x86-64-v3", strict=True)
    assert error.value.cure == "quantize the graph with insert-qdq, or compile with strict=False"


def test_a_quantized_graph_has_to_be_lowered_first(builder: Any) -> None:
    graph = float_graph(builder)
    graph.level = Level.QUANTIZED
    with pytest.raises(OptionError, match=r"passes.LowerToInteger\(\)"):
        build(graph, "x86-64-v3")


def test_an_open_batch_has_to_be_fixed_first(builder: Any) -> None:
    graph = float_graph(builder)
    spec = graph.inputs[0]
    graph.inputs = [type(spec)(spec.name, (None, *spec.shape[1:]), spec.dtype)]
    with pytest.raises(OptionError, match=r"graph.fix_batch\(n\)"):
        build(graph, "x86-64-v3")


def test_an_integer_output_and_a_float_one_of_the_same_value(builder: Any) -> None:
    b = builder(6)
    x = b.input(torch.uint8, (1, 5, 3, 3))
    y = b.conv(x, (8, 5, 3, 3), padding=(1, 1, 1, 1))
    graph = b.finish(y, b.call(planish.dequantize.default, y, 0.1, 4), y, x)
    values = b.values(torch.uint8, (1, 5, 3, 3))
    for got, want in zip(build(graph, "native")(values.numpy()), graph(values), strict=True):
        assert np.array_equal(got, want.numpy())


def test_float_reference_is_torch(builder: Any) -> None:
    graph = float_graph(builder)
    x = torch.randn(2, 3, 9, 9)
    y = F.relu(F.conv2d(x, graph.attribute("t0"), graph.attribute("t1"), padding=1))
    flat = (y + torch.sigmoid(y)).mean((2, 3))
    np.testing.assert_allclose(Reference(graph)(x)[1], flat.numpy(), rtol=1e-4, atol=1e-5)

"""Models that other tools quantized: they arrive quantized, lower to integers, and agree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from planish import Graph, Pipeline, capture, compile, export_onnx, passes
from planish.ir import Level, OperatorError
from planish.ir.fingerprint import graph_content

ort = pytest.importorskip("onnxruntime")


class Block(nn.Module):
    """Convolutions, a residual addition, a concatenation, pools, a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.third = nn.Conv2d(16, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, image: Tensor) -> Tensor:
        """Return [n, 5]."""
        x = torch.relu(self.first(image))
        y = torch.relu(self.second(x) + x)
        z = torch.max_pool2d(torch.cat([x, y], 1), 2)
        return self.head(torch.sigmoid(self.third(z)).mean((2, 3)))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def block() -> Graph:
    return capture(Block().eval(), torch.zeros(1, 3, 8, 8))


def lower(graph: Graph) -> Graph:
    return Pipeline([passes.LowerToInteger()]).run(graph).graph


def run(path: Path, x: Tensor) -> Any:
    """Return the first output of ONNX Runtime without optimizations."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def steps(found: Tensor, expected: Any, graph: Graph) -> Any:
    """Return differences in steps of the output's scale."""
    last = [node for node in graph.calls if node.target is torch.ops.planish.dequantize.default]
    scale: Any = last[-1].args[1] if last else 1.0
    return np.abs(found.detach().numpy() - expected) / scale


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_export_and_import_give_the_same_integers(
    block: Graph, images: Tensor, tmp_path: Path, dtype: str, per_channel: bool
) -> None:
    qdq = passes.InsertQDQ(activation_dtype=dtype, per_channel=per_channel)
    graph = Pipeline([qdq]).run(block, [images]).graph
    again = capture(export_onnx(graph, tmp_path / "q.onnx"))
    assert again.level is Level.QUANTIZED
    assert torch.equal(again(images), graph(images))
    assert graph_content(lower(again)) == graph_content(lower(graph))


def test_large_biases_come_back_exactly(tmp_path: Path) -> None:
    """Of more than 2**24 steps of sx * sw, which the file holds as a rounded product."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 64, 1)
    with torch.no_grad():
        layer.weight.mul_(1e-3)
    graph = capture(layer.eval(), torch.zeros(1, 3, 4, 4))
    graph = Pipeline([passes.InsertQDQ()]).run(graph, [torch.rand(4, 3, 4, 4)]).graph
    integer = lower(graph)
    assert int(integer.attribute("bias").abs().max()) > 2**24
    again = capture(export_onnx(graph, tmp_path / "q.onnx"))
    assert graph_content(lower(again)) == graph_content(integer)


class Encoder(nn.Module):
    """A transformer block on token numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.norm = nn.Embedding(20, 16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        """Take [n, 6] and return [n, 16]."""
        x = self.table(tokens)
        q, k, v = (
            part.reshape(-1, 6, 2, 8).transpose(1, 2)
            for part in self.qkv(self.norm(x)).chunk(3, -1)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(-1, 6, 16))
        return (x + self.down(nn.functional.gelu(self.up(x)))).mean(1)


def test_a_transformer_comes_back_the_same(tmp_path: Path) -> None:
    tokens = torch.randint(0, 20, (4, 6), generator=torch.Generator().manual_seed(0))
    graph = capture(Encoder().eval(), tokens)
    graph = Pipeline([passes.InsertQDQ()]).run(graph, [tokens]).graph
    path = export_onnx(graph, tmp_path / "q.onnx")
    with torch.no_grad():
        np.testing.assert_allclose(run(path, tokens), graph(tokens).numpy(), atol=1e-6)
    again = capture(path)
    assert graph_content(lower(again)) == graph_content(lower(graph))


def test_openvino_runs_what_is_exported(block: Graph, images: Tensor, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    graph = Pipeline([passes.InsertQDQ()]).run(block, [images]).graph
    path = export_onnx(graph, tmp_path / "q.onnx")
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": 1})
    integer = lower(graph)
    assert [port.get_any_name() for port in compiled.inputs] == ["image"]
    found = steps(integer(images), compiled(images.numpy())[0], integer)
    assert (found <= 1.001).mean() >= 0.99


@pytest.mark.parametrize(
    ("format_", "activations", "per_channel", "extra"),
    [
        ("QDQ", "QUInt8", True, {}),
        ("QDQ", "QInt8", False, {"AddQDQPairToWeight": True}),
        ("QOperator", "QUInt8", True, {}),
        ("QOperator", "QInt8", False, {}),
    ],
)
def test_onnx_runtime(
    block: Graph,
    images: Tensor,
    tmp_path: Path,
    format_: str,
    activations: str,
    per_channel: bool,
    extra: dict[str, Any],
) -> None:
    from onnxruntime import quantization as tools

    class Reader(tools.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"image": images.numpy()}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    path = tmp_path / "q.onnx"
    tools.quantize_static(
        export_onnx(block, tmp_path / "f.onnx"),
        path,
        Reader(),
        quant_format=tools.QuantFormat[format_],
        per_channel=per_channel,
        activation_type=tools.QuantType[activations],
        weight_type=tools.QuantType.QInt8,
        extra_options=extra,
    )
    graph = capture(path)
    integer = lower(graph)
    names = {str(node.target).split(".")[1] for node in integer.calls}
    assert {"conv2d_i8", "linear_i8", "add_i8"} <= names
    assert "conv2d" not in names
    found = steps(integer(images), run(path, images), integer)
    assert (found <= 1.001).mean() >= 0.999


def test_pytorch_pt2e(images: Tensor, tmp_path: Path) -> None:
    pytest.importorskip("torch.ao.quantization.fx._decomposed")
    ops = torch.ops.quantized_decomposed
    torch.manual_seed(0)
    weight = torch.randint(-127, 128, (4, 3, 3, 3), dtype=torch.int8)

    class Converted(nn.Module):
        """As convert_pt2e leaves it: stored integers, a pair for each reader."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("_frozen_param0", weight)
            self.register_buffer("scale", torch.rand(4) / 100 + 0.01)
            self.register_buffer("zero", torch.zeros(4, dtype=torch.int64))
            self.bias = nn.Parameter(torch.rand(4))

        def forward(self, x: Tensor) -> Tensor:
            bits = (0, 255, torch.uint8)
            signed = (-128, 127, torch.int8)
            w = ops.dequantize_per_channel(self._frozen_param0, self.scale, self.zero, 0, *signed)
            q = ops.quantize_per_tensor(x, 0.01, 3, *bits)
            y = torch.conv2d(ops.dequantize_per_tensor(q, 0.01, 3, *bits), w, self.bias)
            q = ops.quantize_per_tensor(torch.relu(y), 0.25, 0, *bits)
            first = ops.dequantize_per_tensor(q, 0.25, 0, *bits)
            second = ops.dequantize_per_tensor(q, 0.25, 0, *bits)
            q = ops.quantize_per_tensor(
                torch.max_pool2d(first, 2) + second[..., :3, :3], 0.5, 0, *bits
            )
            return ops.dequantize_per_tensor(q, 0.5, 0, *bits)

    model = Converted().eval()
    program = torch.export.export(model, (images,))
    torch.export.save(program, tmp_path / "q.pt2")
    graph = capture(tmp_path / "q.pt2")
    assert graph.level is Level.QUANTIZED
    quantizers = [n for n in graph.calls if "fake_quantize" in str(n.target)]
    assert len(quantizers) == 4  # the weight, and one a value, however many read it
    assert "conv2d.weight" in graph.attributes
    torch.testing.assert_close(graph(images), model(images))
    integer = lower(graph)
    assert {"conv2d_i8", "add_i8"} <= {str(n.target).split(".")[1] for n in integer.calls}
    assert steps(integer(images), graph(images).detach().numpy(), integer).max() <= 1


Nodes = list[onnx.NodeProto]


def model(nodes: Nodes, stored: dict[str, Any], opset: int = 21) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(np.array(v), name) for name, v in stored.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def pair(x: str, y: str, *stored: str, **options: Any) -> Nodes:
    name = options.pop("name", "q")
    return [
        helper.make_node("QuantizeLinear", [x, *stored], [f"{y}_q"], name=name, **options),
        helper.make_node("DequantizeLinear", [f"{y}_q", *stored], [y], name=f"d{name}", **options),
    ]


def test_sixteen_bits_stay_simulated() -> None:
    stored = {
        "s": np.float32(1e-3),
        "z": np.uint16(100),
        "w": np.ones((4, 2), np.int8),
        "ws": np.float32(0.1),
        "wz": np.int8(0),
    }
    nodes = [
        *pair("x", "xq", "s", "z"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wr"], name="dw"),
        helper.make_node("MatMul", ["xq", "wr"], ["m"], name="product"),
        *pair("m", "y", "s", "z", name="out"),
    ]
    graph = capture(model(nodes, stored))
    result = Pipeline([passes.LowerToInteger()]).run(graph)
    x = torch.rand(3, 4)
    torch.testing.assert_close(result.graph(x), graph(x))
    refused = {item.node for step in result.graph.history for item in step.refused}
    assert "product" in refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: model(
                pair("x", "y", "s", "z", axis=1, block_size=2, name="blocked"),
                {"s": np.ones((1, 2), np.float32), "z": np.zeros((1, 2), np.int8)},
            ),
            "QuantizeLinear has scales in blocks.*node 'blocked'",
        ),
        (
            lambda: model(
                pair("x", "y", "s", "z", name="flat"), {"s": np.float32(0), "z": np.int8(0)}
            ),
            "scale that is not above zero.*node 'flat'",
        ),
        (
            lambda: model(
                pair("x", "y", "s", "z", name="halves"), {"s": np.float16(1), "z": np.int8(0)}
            ),
            "scale of torch.float16.*node 'halves'",
        ),
    ],
)
def test_refusals(build: Callable[[], onnx.ModelProto], message: str) -> None:
    with pytest.raises(OperatorError) as caught:
        capture(build())
    first, _, second = message.partition(".*")
    assert first in str(caught.value)
    assert second in str(caught.value)


def test_integers_may_be_moved_joined_and_returned() -> None:
    stored = {"s": np.float32(0.1), "z": np.uint8(9), "two": np.array([2, -1], np.int64)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("Concat", ["q", "q"], ["c"], axis=1),
        helper.make_node("Transpose", ["c"], ["t"], perm=[1, 0]),
        helper.make_node("DequantizeLinear", ["t", "s", "z"], ["y"]),
    ]
    built = model(nodes, stored)
    built.graph.output.append(helper.make_tensor_value_info("c", TensorProto.UINT8, None))
    x = torch.randn(5, 4)
    y, c = capture(built)(x)
    session = ort.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])
    want_y, want_c = session.run(None, {"x": x.numpy()})
    np.testing.assert_array_equal(y.numpy(), want_y)
    np.testing.assert_array_equal(c.numpy(), want_c)


def test_integers_made_for_an_output_or_another_scale_compile() -> None:
    stored = {"s": np.float32(0.1), "t": np.float32(0.3), "z": np.uint8(9)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["q", "t", "z"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    built = model(nodes, stored)
    built.graph.output.append(helper.make_tensor_value_info("q", TensorProto.UINT8, None))
    x = torch.randn(5, 4)
    session = ort.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"x": x.numpy()})
    compiled = compile(capture(built), target="x86-64-v3", batch=5)(x.numpy())
    for found, want in zip(compiled, wanted, strict=True):
        np.testing.assert_array_equal(found, want)


def test_a_constant_may_have_the_lowest_integer_as_its_zero_point() -> None:
    """quantize_static stores a positive number so: 127, less -128, times its value / 255."""
    stored = {
        "s": np.float32(0.1),
        "z": np.int8(-128),
        "c": np.array([127], np.int8),
        "cs": np.float32(0.8 / 255),
        "cz": np.int8(-128),
    }
    nodes = [
        *pair("x", "xq", "s", "z"),
        helper.make_node("DequantizeLinear", ["c", "cs", "cz"], ["cr"], name="dc"),
        helper.make_node("Mul", ["xq", "cr"], ["m"], name="product"),
        *pair("m", "y", "s", "z", name="out"),
    ]
    graph = capture(model(nodes, stored))
    x = torch.rand(3, 4)
    integer = lower(graph)
    assert steps(integer(x), graph(x).detach().numpy(), integer).max() <= 1

"""Converters against ONNX's reference, where the node tests have no case: old opsets, odd uses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import planish

ort = pytest.importorskip("onnxruntime")
Build = Callable[..., onnx.ModelProto]
node = helper.make_node


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def check(model: onnx.ModelProto, *values: np.ndarray, tolerance: float = 1e-4) -> planish.Graph:
    """Compare with ONNX Runtime; return the graph."""
    names = [value.name for value in model.graph.input]
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, dict(zip(names, values, strict=True)))
    shapes = {name: value.shape for name, value in zip(names, values, strict=True)}
    graph = planish.capture(model, shapes=shapes)
    outputs = graph(*(torch.from_numpy(value) for value in values))
    for found, right in zip(
        outputs if isinstance(outputs, tuple) else (outputs,), wanted, strict=True
    ):
        scale = max(float(np.abs(right).max()), 1e-3)
        assert tuple(found.shape) == right.shape
        assert float(np.abs(found.detach().numpy() - right).max()) <= tolerance * scale
    return graph


# name, nodes, shape of x, stored tensors, opset
CASES: list[tuple[str, list[onnx.NodeProto], tuple[int, ...], dict[str, Any], int]] = [
    ("clip by attributes", [node("Clip", ["x"], ["y"], min=-0.5, max=0.25)], (2, 3), {}, 9),
    ("pad by attributes", [node("Pad", ["x"], ["y"], pads=[0, 1, 0, 2], value=1.5)], (2, 3), {}, 9),
    (
        "slice by attributes",
        [node("Slice", ["x"], ["y"], starts=[1, -2], ends=[9, 5], axes=[0, 1])],
        (4, 5),
        {},
        9,
    ),
    (
        "squeeze by attributes",
        [node("Unsqueeze", ["x"], ["u"], axes=[0, 3]), node("Squeeze", ["u"], ["y"], axes=[3])],
        (2, 3),
        {},
        9,
    ),
    (
        "split by attributes",
        [
            node("Split", ["x"], ["a", "b"], axis=1, split=[1, 2]),
            node("Concat", ["b", "a"], ["y"], axis=1),
        ],
        (2, 3),
        {},
        9,
    ),
    (
        "reduce by attributes",
        [node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)],
        (2, 3, 4),
        {},
        9,
    ),
    (
        "softmax over all from the axis on",
        [node("Softmax", ["x"], ["y"], axis=1)],
        (2, 3, 4),
        {},
        9,
    ),
    ("log softmax, the default axis", [node("LogSoftmax", ["x"], ["y"])], (2, 3, 4), {}, 11),
    (
        "upsample",
        [node("Upsample", ["x", "s"], ["y"], mode="linear")],
        (1, 2, 3, 4),
        {"s": np.array([1, 1, 2, 2], np.float32)},
        9,
    ),
    (
        "resize before 11",
        [node("Resize", ["x", "s"], ["y"])],
        (1, 2, 3, 4),
        {"s": np.array([1, 1, 2.5, 2], np.float32)},
        10,
    ),
    (
        "top k by attribute-less input",
        [node("TopK", ["x", "k"], ["y", "i"], axis=1)],
        (2, 6),
        {"k": np.array([3])},
        10,
    ),
    ("dropout of old", [node("Dropout", ["x"], ["y"], ratio=0.3)], (2, 3), {}, 9),
    (
        "batch norm of old",
        [node("BatchNormalization", ["x", "g", "g", "g", "g"], ["y"], epsilon=1e-3)],
        (2, 3, 4, 4),
        {"g": np.array([0.5, 1, 2], np.float32)},
        9,
    ),
    (
        "convolution of one axis, uneven pads",
        [node("Conv", ["x", "w"], ["y"], pads=[2, 1], dilations=[2], strides=[2])],
        (2, 3, 9),
        {"w": random(4, 3, 3)},
        17,
    ),
    (
        "convolution of three axes",
        [node("Conv", ["x", "w"], ["y"], pads=[1, 0, 1, 1, 0, 1])],
        (1, 2, 4, 5, 6),
        {"w": random(3, 2, 2, 3, 2)},
        17,
    ),
    (
        "convolution, same lower",
        [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2, 2])],
        (1, 3, 7, 8),
        {"w": random(4, 3, 3, 2)},
        17,
    ),
    (
        "transposed, groups and output padding",
        [
            node(
                "ConvTranspose",
                ["x", "w", "b"],
                ["y"],
                group=2,
                strides=[3, 2],
                pads=[1, 0, 0, 2],
                output_padding=[1, 1],
            )
        ],
        (1, 4, 5, 4),
        {"w": random(4, 3, 3, 3), "b": random(6)},
        17,
    ),
    (
        "transposed on one axis",
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2], pads=[1, 1])],
        (2, 3, 5),
        {"w": random(3, 2, 4)},
        17,
    ),
    (
        "average pool, uneven pads not counted",
        [node("AveragePool", ["x"], ["y"], kernel_shape=[3, 2], pads=[1, 0, 2, 1], strides=[2, 1])],
        (1, 2, 6, 5),
        {},
        17,
    ),
    (
        "average pool on one axis",
        [node("AveragePool", ["x"], ["y"], kernel_shape=[3], strides=[2])],
        (1, 2, 7),
        {},
        17,
    ),
    (
        "max pool, ceiling",
        [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        (1, 2, 6, 8),
        {},
        17,
    ),
    (
        "gemm with factors",
        [node("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, beta=2.0, transA=1)],
        (4, 3),
        {"w": random(4, 5), "b": random(1, 5)},
        17,
    ),
    (
        "gemm of a column bias",
        [node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        (4, 3),
        {"w": random(5, 3), "b": random(4, 1)},
        17,
    ),
    ("matrix first", [node("MatMul", ["w", "x"], ["y"])], (2, 4, 3), {"w": random(5, 4)}, 17),
    (
        "a slope for each channel",
        [node("PRelu", ["x", "s"], ["y"])],
        (2, 3, 4),
        {"s": random(3, 1)},
        17,
    ),
    (
        "a number first",
        [node("Sub", ["c", "x"], ["a"]), node("Div", ["c", "a"], ["y"])],
        (2, 3),
        {"c": np.array(30.0, np.float32)},
        17,
    ),
    (
        "lrn",
        [node("LRN", ["x"], ["y"], size=3, alpha=0.2, beta=0.6, bias=1.5)],
        (2, 5, 3, 3),
        {},
        17,
    ),
    (
        "rows of a table",
        [node("Cast", ["x"], ["i"], to=TensorProto.INT64), node("Gather", ["t", "i"], ["y"])],
        (2, 3),
        {"t": random(7, 4)},
        17,
    ),
    (
        "negative steps",
        [node("Slice", ["x", "a", "b", "c", "s"], ["y"])],
        (5, 6),
        {
            "a": np.array([-1, 4]),
            "b": np.array([-100, 0]),
            "c": np.array([0, 1]),
            "s": np.array([-2, -3]),
        },
        17,
    ),
    (
        "einsum with rows and columns",
        [node("Einsum", ["x", "w"], ["y"], equation="bhid,bhjd->bhij")],
        (2, 3, 4, 5),
        {"w": random(2, 3, 6, 5)},
        17,
    ),
]


@pytest.mark.parametrize(
    ("nodes", "shape", "stored", "opset"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_equal_to_onnx_runtime(
    build: Build,
    nodes: list[onnx.NodeProto],
    shape: tuple[int, ...],
    stored: dict[str, Any],
    opset: int,
) -> None:
    x = random(*shape) if "i" not in nodes[0].output else np.abs(random(*shape)) * 2
    check(build(nodes, {"x": list(shape)}, stored=stored, opset=opset), x)


@pytest.mark.parametrize("operator", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_recurrent_layers(build: Build, operator: str, direction: str) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    ways = 2 if direction == "bidirectional" else 1
    stored = {
        "w": random(ways, gates * 5, 4),
        "r": random(ways, gates * 5, 5),
        "b": random(ways, 2 * gates * 5),
        "h": random(ways, 3, 5),
    }
    options: dict[str, Any] = {"linear_before_reset": 1} if operator == "GRU" else {}
    made = node(
        operator,
        ["x", "w", "r", "b", "", "h"],
        ["y", "last"],
        hidden_size=5,
        direction=direction,
        **options,
    )
    check(build([made], {"x": [6, 3, 4]}, ["y", "last"], stored), random(6, 3, 4))


def test_an_open_batch_goes_through_a_recurrent_layer(build: Build) -> None:
    stored = {"w": random(1, 20, 4), "r": random(1, 20, 5)}
    made = node("LSTM", ["x", "w", "r"], ["y"], hidden_size=5)
    model = build([made], {"x": [3, "N", 4]}, stored=stored)
    graph = planish.capture(model, shapes={"x": (3, 2, 4)})
    assert graph.shape(graph.outputs[0]) == (3, 1, 2, 5)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    "coordinates", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]
)
def test_resize(build: Build, mode: str, coordinates: str) -> None:
    """Against the reference: ONNX Runtime's own rounding of coordinates is in float32."""
    made = node(
        "Resize", ["x", "", "s"], ["y"], mode=mode, coordinate_transformation_mode=coordinates
    )
    for factors in ([1, 1, 2, 2], [1, 1, 0.5, 1.75]):
        model = build([made], {"x": ["N", 2, 8, 6]}, stored={"s": np.array(factors, np.float32)})
        x = random(1, 2, 8, 6)
        wanted: Any = ReferenceEvaluator(model).run(None, {"x": x})
        found = planish.capture(model)(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(found, wanted[0], rtol=1e-4, atol=1e-4)


def test_resizing_by_two_uses_torchs_operators(build: Build) -> None:
    for mode, label in (("nearest", "upsample_nearest2d"), ("linear", "upsample_bilinear2d")):
        made = node("Resize", ["x", "", "s"], ["y"], mode=mode)
        stored = {"s": np.array([1, 1, 2, 2], np.float32)}
        graph = planish.capture(build([made], {"x": ["N", 2, 4, 4]}, stored=stored))
        assert [str(n.target).split(".")[1] for n in graph.calls] == [label]


@pytest.mark.parametrize(
    ("operator", "stored"),
    [
        ("Gelu", {}),
        ("FastGelu", {"b": random(4)}),
        ("BiasGelu", {"b": random(4)}),
        ("QuickGelu", {}),
        ("SkipLayerNormalization", {"s": random(2, 3, 4), "g": random(4), "b": random(4)}),
    ],
)
def test_what_onnx_runtime_fuses(build: Build, operator: str, stored: dict[str, Any]) -> None:
    made = node(operator, ["x", *stored], ["y"], domain="com.microsoft")
    model = build([made], {"x": [2, 3, 4]}, stored=stored)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    check(model, random(2, 3, 4))


def test_a_fused_convolution(build: Build) -> None:
    stored = {"w": random(4, 3, 3, 3), "b": random(4), "z": random(1, 4, 6, 6)}
    made = node("FusedConv", ["x", *stored], ["y"], domain="com.microsoft", activation="Relu")
    model = build([made], {"x": [1, 3, 8, 8]}, stored=stored)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    check(model, random(1, 3, 8, 8))

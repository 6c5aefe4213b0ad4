"""Building ONNX models in a line, and running them elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None]
Build = Callable[..., onnx.ModelProto]


def build_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Sequence[str] = ("y",),
    stored: Mapping[str, Any] | None = None,
    opset: int = 17,
    dtypes: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Return a model; sizes may be names of open ones."""
    kinds = dtypes or {}
    given = [
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
        for name, shape in inputs.items()
    ]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in (stored or {}).items()]
    graph = helper.make_graph(list(nodes), "test", given, made, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture
def build() -> Build:
    """`build(nodes, inputs, outputs, stored, opset)` makes a ModelProto."""
    return build_model


@pytest.fixture
def chain(build: Build) -> onnx.ModelProto:
    """Two convolutions and a head; the batch is open, a reshape reads it."""
    node = helper.make_node
    rng = np.random.default_rng(0)
    stored = {
        "stem.weight": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "stem.bias": rng.standard_normal(4).astype(np.float32),
        "head.weight": rng.standard_normal((64, 5)).astype(np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "rest": np.array([-1]),
    }
    nodes = [
        node(
            "Conv",
            ["x", "stem.weight", "stem.bias"],
            ["c"],
            "stem",
            strides=[2, 2],
            pads=[1, 1, 1, 1],
        ),
        node("Relu", ["c"], ["r"], "act"),
        node("Shape", ["r"], ["s"], "shape"),
        node("Slice", ["s", "zero", "one"], ["n"], "batch"),
        node("Concat", ["n", "rest"], ["to"], "to", axis=0),
        node("Reshape", ["r", "to"], ["f"], "flat"),
        node("MatMul", ["f", "head.weight"], ["y"], "head"),
    ]
    return build(nodes, {"x": ["N", 3, 8, 8]}, stored=stored)

"""Import: shapes, names, origins, levels, an open batch, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import planish
from planish.ir import Graph, Level, ModelError, OperatorError, OptionError
from planish.onnx_import import NeedsConstantError, import_onnx

Build = Callable[..., onnx.ModelProto]
node = helper.make_node


def answers(model: onnx.ModelProto, *values: np.ndarray) -> list[np.ndarray]:
    names = [value.name for value in model.graph.input]
    found = ReferenceEvaluator(model).run(None, dict(zip(names, values, strict=False)))
    return [np.asarray(value) for value in found]


def agree(graph: Graph, model: onnx.ModelProto, *values: np.ndarray) -> None:
    outputs = graph(*(torch.from_numpy(value) for value in values))
    found = outputs if isinstance(outputs, tuple) else (outputs,)
    for value, wanted in zip(found, answers(model, *values), strict=True):
        np.testing.assert_allclose(value.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def test_a_file_and_a_proto_give_the_same_graph(chain: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(chain, path)
    assert planish.capture(path).fingerprint() == planish.capture(chain).fingerprint()


def test_the_batch_stays_open_through_shape_arithmetic(chain: onnx.ModelProto) -> None:
    graph = planish.capture(chain)
    assert graph.level is Level.CANONICAL
    assert graph.inputs[0].shape == (None, 3, 8, 8)
    for batch in (1, 3):
        agree(graph, chain, random(batch, 3, 8, 8))


def test_names_and_origins_are_the_models(chain: onnx.ModelProto) -> None:
    graph = planish.capture(chain)
    assert [graph.origin(n).name for n in graph.calls] == ["stem", "act", "flat", "head"]
    assert {"stem.weight", "stem.bias"} <= set(graph.attributes)
    assert graph.output_names == ["y"]
    assert graph.copy().output_names == ["y"]
    steps = planish.Pipeline([planish.passes.InsertQDQ(), planish.passes.LowerToInteger()])
    lowered = steps.run(graph, [random(4, 3, 8, 8)]).graph
    assert [info.name for info in planish.compile(lowered).outputs] == ["y"]


def test_float_initializers_train(chain: onnx.ModelProto) -> None:
    graph = planish.capture(chain)
    assert len(graph.parameters()) == 3
    graph(torch.from_numpy(random(2, 3, 8, 8))).sum().backward()
    assert all(parameter.grad is not None for parameter in graph.parameters())


def test_output_names_are_saved(build: Build, tmp_path: Path) -> None:
    model = build(
        [node("Relu", ["x"], ["first"]), node("Neg", ["x"], ["second"])],
        {"x": [2, 3]},
        ["first", "second"],
    )
    graph = planish.capture(model)
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph")
    assert loaded.output_names == ["first", "second"]
    agree(loaded, model, random(2, 3))


def test_other_open_sizes_need_a_shape(build: Build) -> None:
    model = build([node("Relu", ["x"], ["y"])], {"x": ["N", 3, "height", 8]})
    with pytest.raises(ModelError, match=r"'x' has an open size on axis 2.*height"):
        planish.capture(model)
    for graph in (
        planish.capture(model, shapes={"x": (1, 3, 4, 8)}),
        planish.capture(model, np.zeros((1, 3, 4, 8), np.float32)),
    ):
        assert graph.inputs[0].shape == (None, 3, 4, 8)


def test_a_batch_that_the_model_fixes_takes_the_given_size(build: Build) -> None:
    model = build(
        [node("Reshape", ["x", "to"], ["y"])], {"x": ["N", 4]}, stored={"to": np.array([2, 6])}
    )
    graph = planish.capture(model, shapes={"x": (3, 4)})
    assert graph.inputs[0].shape == (3, 4)
    agree(graph, model, random(3, 4))
    with pytest.raises(OperatorError, match="fix the batch"):
        planish.capture(model)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"z": (1, 3)}, "no input is named 'z'"),
        ({"x": (1, 4)}, "has the shape"),
        ({"x": (1, None)}, "has an open size on axis 1"),
    ],
)
def test_wrong_shapes(build: Build, shapes: dict[str, tuple[int, ...]], words: str) -> None:
    model = build([node("Relu", ["x"], ["y"])], {"x": ["N", 3]})
    with pytest.raises(ModelError, match=words):
        planish.capture(model, shapes=shapes)


@pytest.mark.parametrize("shapes", [{"x": "1x3"}, {"x": 3}, {"x": (1.5, 3)}, [(1, 3)]])
def test_shapes_that_are_none(build: Build, shapes: Any) -> None:
    model = build([node("Relu", ["x"], ["y"])], {"x": ["N", 3]})
    with pytest.raises(OptionError, match="sizes by input name"):
        planish.capture(model, shapes=shapes)


def test_expand_by_exported_shape_arithmetic(build: Build) -> None:
    """torch's exporter writes expand as Where(Equal(shape, -1), ones, shape)."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Concat", ["n1", "two", "three"], ["to"], axis=0),
        node(
            "ConstantOfShape",
            ["count"],
            ["ones"],
            value=helper.make_tensor("v", TensorProto.INT64, [1], [1]),
        ),
        node("Mul", ["ones", "minus"], ["wild"]),
        node("Equal", ["to", "wild"], ["same"]),
        node("Where", ["same", "ones", "to"], ["final"]),
        node("Expand", ["row", "final"], ["spread"]),
        node("Add", ["x", "spread"], ["y"]),
    ]
    stored = {
        "zero": np.array(0),
        "axes": np.array([0]),
        "two": np.array([2]),
        "three": np.array([3]),
        "count": np.array([3]),
        "minus": np.array(-1),
        "row": random(1, 1, 3),
    }
    model = build(nodes, {"x": ["N", 2, 3]}, stored=stored)
    graph = planish.capture(model)
    assert graph.inputs[0].shape[0] is None
    agree(graph, model, random(5, 2, 3))


def test_model_functions_are_inlined(build: Build) -> None:
    model = build(
        [helper.make_node("Twice", ["x"], ["y"], "twice", domain="own", by=3.0)], {"x": [2, 3]}
    )
    body = [
        helper.make_node("Constant", [], ["c"]),
        helper.make_node("Mul", ["a", "c"], ["b"]),
    ]
    reference = body[0].attribute.add()
    reference.name, reference.ref_attr_name = "value_float", "by"
    reference.type = onnx.AttributeProto.FLOAT
    model.functions.append(
        helper.make_function(
            "own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)], ["by"]
        )
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    graph = planish.capture(model)
    x = random(2, 3)
    np.testing.assert_allclose(graph(torch.from_numpy(x)).numpy(), 3 * x)
    assert graph.origin(graph.calls[0]).name.startswith("twice")


def test_unsorted_nodes_are_sorted_and_dead_ones_dropped(chain: onnx.ModelProto) -> None:
    nodes = list(reversed(chain.graph.node))
    del chain.graph.node[:]
    chain.graph.node.extend(nodes)
    chain.graph.node.append(node("Mystery", ["x"], ["unused"]))
    sorted_graph = planish.capture(chain)
    assert sorted_graph.origin(sorted_graph.calls[0]).name == "stem"
    assert len(sorted_graph.calls) == 4


def test_an_input_that_must_be_known_can_be_fixed(build: Build) -> None:
    model = build(
        [node("Tile", ["x", "n"], ["y"])],
        {"x": [2, 3], "n": [2]},
        dtypes={"n": TensorProto.INT64},
    )
    with pytest.raises(NeedsConstantError, match="input 1 at import") as caught:
        import_onnx(model)
    assert caught.value.inputs == ["n"]
    graph = import_onnx(model, constants={"n": np.array([1, 2])})
    assert [spec.name for spec in graph.inputs] == ["x"]
    assert graph.shape(graph.outputs[0]) == (2, 6)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (node("Mystery", ["x"], ["y"], "m"), "Mystery of opset 17 is not supported; at node 'm'"),
        (node("NonZero", ["x"], ["y"], "m"), "depends on the data"),
        (node("Foreign", ["x"], ["y"], "m", domain="com.x"), "of domain 'com.x'"),
        (node("Softmax", ["x"], ["y"], "m", axis=5), "has no axis 5"),
        (node("Cast", ["x"], ["y"], "m", to=TensorProto.FLOAT8E5M2), "FLOAT8E5M2"),
    ],
)
def test_refusals_name_operator_and_node(build: Build, made: onnx.NodeProto, words: str) -> None:
    with pytest.raises(OperatorError, match=words):
        planish.capture(build([made], {"x": [2, 3]}))


def test_sub_graphs_are_refused(build: Build) -> None:
    branch = helper.make_graph(
        [node("Relu", ["x"], ["z"])],
        "b",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 3])],
    )
    model = build(
        [node("If", ["c"], ["y"], "choice", then_branch=branch, else_branch=branch)],
        {"x": [2, 3], "c": []},
        dtypes={"c": TensorProto.BOOL},
    )
    with pytest.raises(OperatorError, match=r"If holds a sub-graph.*node 'choice'"):
        planish.capture(model)


def test_masks_of_infinity_before_a_softmax(build: Build) -> None:
    mask = np.where(np.tri(4) > 0, 0, -np.inf).astype(np.float32)
    nodes = [node("Add", ["x", "mask"], ["s"]), node("Softmax", ["s"], ["y"], axis=-1)]
    model = build(nodes, {"x": ["N", 4, 4]}, stored={"mask": mask})
    agree(planish.capture(model), model, random(2, 4, 4))
    shown = build(nodes[:1], {"x": ["N", 4, 4]}, ["s"], stored={"mask": mask})
    with pytest.raises(OperatorError, match="infinity reaches an output"):
        planish.capture(shown)


def test_the_command_line_takes_onnx(chain: onnx.ModelProto, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from planish.cli.app import app

    chain.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(chain, tmp_path / "model.onnx")
    words = ["capture", str(tmp_path / "model.onnx"), "--output", str(tmp_path / "graph")]
    done = CliRunner().invoke(app, [*words, "--input-shape", "1x3x8x8"])
    assert done.exit_code == 0, done.output
    assert Graph.load(tmp_path / "graph").inputs[0].shape == (None, 3, 8, 8)

"""Reading files: external data, damage, and what breaks the format's rules."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import planish
from planish.ir import ModelError, OperatorError, PlanishError

Build = Callable[..., onnx.ModelProto]
node = helper.make_node


@pytest.fixture
def external(build: Build, tmp_path: Path) -> onnx.ModelProto:
    """A model whose weight lies in w.bin beside it."""
    model = build(
        [node("Add", ["x", "w"], ["y"])], {"x": [2, 3]}, stored={"w": np.ones((2, 3), np.float32)}
    )
    tensor = model.graph.initializer[0]
    (tmp_path / "w.bin").write_bytes(b"1234" + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    _place(tensor, "w.bin", 4, 24)
    return model


def _place(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_beside_the_model(external: onnx.ModelProto, tmp_path: Path) -> None:
    graph = planish.capture(save(external, tmp_path))
    assert torch.equal(graph(torch.zeros(2, 3)), torch.ones(2, 3))


@pytest.mark.parametrize(
    "location",
    [
        *("../w.bin", "/etc/passwd", "a/../../w.bin", "", ".", "link.bin", "..\\w.bin", "no"),
        *("loop.bin", "w" * 5000),
    ],
)
def test_external_data_elsewhere(external: onnx.ModelProto, tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "loop.bin").symlink_to("loop.bin")
    _place(external.graph.initializer[0], location, 4, 24)
    with pytest.raises(ModelError, match="not a file below the model's folder"):
        planish.capture(save(external, folder))


@pytest.mark.parametrize(
    ("offset", "length"), [(8, 24), (-4, 24), (4, 20), (4, 2**40), (2**62, 24)]
)
def test_external_data_out_of_bounds(
    external: onnx.ModelProto, tmp_path: Path, offset: int, length: int
) -> None:
    _place(external.graph.initializer[0], "w.bin", offset, length)
    with pytest.raises(ModelError):
        planish.capture(save(external, tmp_path))


def test_external_data_of_a_model_in_memory(external: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match="give the path"):
        planish.capture(external)


def test_a_truncated_file(chain: onnx.ModelProto, tmp_path: Path) -> None:
    data = chain.SerializeToString()
    path = tmp_path / "model.onnx"
    for length in (0, 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(PlanishError):
            planish.capture(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        planish.capture(tmp_path / "model.onnx")


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "f"


def _missing(model: onnx.ModelProto) -> None:
    del model.graph.initializer[1]


def _doubled(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = "c"
    model.graph.node[2].input[0] = "c"
    model.graph.node[5].input[0] = "c"


def _short(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = b"123"


def _negative(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -4


def _future(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 9999


def _text(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = TensorProto.STRING


def _output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "other"


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (_cycle, "has a cycle through Conv 'stem'"),
        (_missing, "nothing computes 'stem.bias'"),
        (_doubled, "'c' is computed twice"),
        (_short, "has 3 bytes, not 432"),
        (_negative, "impossible shape"),
        (_future, "opset 9999 is not supported"),
        (_text, "element type STRING"),
        (_output, "nothing computes the output 'other'"),
    ],
)
def test_broken_rules(
    chain: onnx.ModelProto, break_it: Callable[[onnx.ModelProto], None], words: str
) -> None:
    break_it(chain)
    with pytest.raises(PlanishError, match=words):
        planish.capture(chain)


def test_absurd_sizes_are_refused_and_not_computed(build: Build) -> None:
    nodes = [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])]
    model = build(nodes, {"x": [1]}, stored={"s": np.array([2**31, 2**20])})
    with pytest.raises(OperatorError, match="a constant of 9007199254740992 bytes"):
        planish.capture(model)
    huge = build([node("Relu", ["x"], ["y"])], {"x": [2**40, 2**30]})
    with pytest.raises(ModelError, match="impossible shape"):
        planish.capture(huge)


def test_functions_that_call_themselves_end(build: Build) -> None:
    model = build([helper.make_node("F", ["x"], ["y"], domain="own")], {"x": [2]})
    body = [helper.make_node("F", ["a"], ["b"], domain="own")]
    imports = [helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], body, imports))
    model.opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(OperatorError, match="nested deeper"):
        planish.capture(model)

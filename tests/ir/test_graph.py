"""The graph runs at any batch size, copies, saves, and says what is wrong with its inputs."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from planish import capture
from planish.ir import DataError, Graph, ModelError, OperatorError, PlanishError, verify


def test_text(graph: Graph, golden: Callable[[str, str], None]) -> None:
    golden("small_network", graph.text())


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_runs_at_any_batch_size_and_returns_what_the_model_returns(
    graph: Graph, model: nn.Module, batch: int
) -> None:
    x = torch.randn(batch, 3, 6, 6)
    got, expected = graph(x), model(x)
    assert list(got) == ["features", "logits"]
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value)


def test_takes_arrays_and_names(graph: Graph) -> None:
    x = np.zeros((1, 3, 6, 6), np.float32)
    assert torch.equal(graph(image=x)["logits"], graph(x)["logits"])


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "also takes ['image']"),
        ((1, 2), {}, "2 inputs given, the model takes 1"),
        ((None,), {}, "input 'image' is not an array"),
        (("x",), {}, "input 'image' is not an array"),
        ((), {"picture": 1}, "no input is named 'picture'"),
        ((torch.zeros(1, 3, 6, 7),), {}, "shape [1, 3, 6, 7], expected image: f32[N, 3, 6, 6]"),
        ((torch.zeros(3, 6, 6),), {}, "shape [3, 6, 6]"),
        ((torch.zeros(1, 3, 6, 6, dtype=torch.float64),), {}, "dtype f64, expected image: f32"),
    ],
)
def test_wrong_inputs(
    graph: Graph, args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as error:
        graph(*args, **kwargs)
    assert message in str(error.value)


def test_train_and_eval_switch_batch_norm_and_dropout(graph: Graph) -> None:
    x = torch.randn(8, 3, 6, 6)
    before = graph(x)["logits"]
    mean = graph.attribute("bn.running_mean").clone()
    graph.train()
    torch.manual_seed(0)
    trained = graph(x)["logits"]
    assert not torch.equal(trained, before)
    assert not torch.equal(graph.attribute("bn.running_mean"), mean)
    graph.eval()
    assert not graph.training
    graph.set_attribute("bn.running_mean", mean)
    torch.testing.assert_close(graph(x)["logits"].shape, before.shape)


def test_gradients_reach_the_parameters(graph: Graph) -> None:
    graph(torch.randn(2, 3, 6, 6))["logits"].sum().backward()
    assert all(parameter.grad is not None for parameter in graph.parameters())


def test_a_copy_shares_nothing(graph: Graph) -> None:
    copied = graph.copy()
    assert copied.fingerprint() == graph.fingerprint()
    with torch.no_grad():
        copied.attribute("conv.weight").zero_()
    copied.annotations["note"] = {}
    assert copied.fingerprint() != graph.fingerprint()
    assert bool(graph.attribute("conv.weight").any())
    assert graph.annotations == {}


def test_save_and_load_keep_everything(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "small.graph"
    graph.save(path)
    loaded = Graph.load(path)
    verify(loaded)
    assert loaded.fingerprint() == graph.fingerprint()
    assert [graph.origin(n) for n in graph.calls] == [loaded.origin(n) for n in loaded.calls]
    assert [p.shape for p in loaded.parameters()] == [p.shape for p in graph.parameters()]
    x = torch.randn(3, 3, 6, 6)
    assert torch.equal(loaded(x)["logits"], graph(x)["logits"])
    again = tmp_path / "again.graph"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("keep", [0, 10, 200, -10])
def test_a_truncated_file_is_an_error(graph: Graph, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "small.graph"
    graph.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="not a planish graph, or a damaged one"):
        Graph.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["nodes"][2].update(target="aten.system.default"),
        lambda d: d["nodes"][2].update(op="call_module"),
        lambda d: d["nodes"][-1].update(args=[[{"node": "nothing"}]]),
        lambda d: d.update(level="molten"),
        lambda d: d.update(format=99),
        lambda d: d.pop("structure"),
    ],
)
def test_a_foreign_description_is_an_error(
    graph: Graph, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = tmp_path / "small.graph"
    graph.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(parts["graph.json"])
    change(description)
    parts["graph.json"] = json.dumps(description).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ModelError):
        Graph.load(path)


def test_save_to_a_missing_folder_leaves_nothing(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(PlanishError, match="can't write"):
        graph.save(tmp_path / "missing" / "small.graph")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_older_file(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.graph"
    path.write_bytes(b"older")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PlanishError, match="No space left on device"):
        graph.save(path)
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_fix_batch(graph: Graph) -> None:
    fixed = graph.fix_batch(3)
    assert fixed.shape(fixed.outputs[0]) == (3, 4, 6, 6)
    assert graph.shape(graph.outputs[0]) == (None, 4, 6, 6)
    with pytest.raises(DataError, match=r"f32\[3, 3, 6, 6\]"):
        fixed(torch.zeros(2, 3, 6, 6))


def test_origins_name_layers_and_lines(graph: Graph) -> None:
    origins = {graph.origin(node).name: graph.origin(node) for node in graph.calls}
    assert {"conv", "bn", "drop", "fc", "relu", "add", "flatten"} <= origins.keys()
    assert str(origins["relu"].file).endswith("conftest.py")
    assert (origins["relu"].line or 0) > 0


def test_shared_tensors_stay_shared() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4, bias=False)
            self.second = nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    graph = capture(Tied(), torch.zeros(1, 4))
    assert list(graph.attributes) == ["first.weight"]


def test_a_stored_tensor_may_bear_the_name_of_a_method(graph: Graph) -> None:
    name = graph.copy().new_attribute("float.scale", torch.ones(1))
    assert name == "float_.scale"


def test_an_operator_without_a_row_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.logcumsumexp(x, 1)

    with pytest.raises(OperatorError) as error:
        capture(Odd(), torch.zeros(1, 4))
    message = str(error.value)
    assert "aten.logcumsumexp.default" in message
    assert "test_graph.py:" in message
    assert "docs/add-an-operator.md" in message


def test_new_tensors_destroy_no_old_ones() -> None:
    graph = capture(nn.Linear(4, 3), torch.zeros(1, 4))
    one = torch.ones(1)
    made = [graph.new_attribute(name, one) for name in ("mean", "mean.scale", "a.b.c", "a.b", "a")]
    made += [graph.new_attribute(name, one) for name in ("float", "to.type", "mean", "mean.scale")]
    assert made == [
        *("mean", "mean_.scale", "a.b.c", "a.b_1", "a_1"),
        *("float_", "to_.type_", "mean_1", "mean_.scale_1"),
    ]
    assert set(made) <= graph.attributes.keys()


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_the_batch_stays_open_through_a_resize(mode: str) -> None:
    class Tokens(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = nn.functional.interpolate(x, scale_factor=2.0, mode=mode)
            return y.flatten(2).transpose(1, 2)

    graph = capture(Tokens(), torch.zeros(1, 2, 4, 4))
    assert graph.shape(graph.outputs[0]) == (None, 64, 2)

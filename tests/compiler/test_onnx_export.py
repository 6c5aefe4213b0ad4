"""ONNX export: what ONNX Runtime computes is what the graph computes; the files are standard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from planish import Graph, Pipeline, capture, export_onnx, passes
from planish.evaluate import evaluating
from planish.ir import Level, ModelError, OperatorError, OptionError, PlanishError
from planish.ir.ops import rows
from planish.onnx_export import onnx_model
from planish.onnx_export.registry import emitted_rows

ort = pytest.importorskip("onnxruntime")
Cases = dict[str, Callable[[Tensor], Any]]


class Many(nn.Module):
    """Independent functions of one input; returns their results by name."""

    def __init__(self, cases: Cases) -> None:
        super().__init__()
        self.cases = cases
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 6, 3, 2, (1, 0), groups=2)
        self.transposed = nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, dilation=1)
        self.linear = nn.Linear(12, 5)
        self.bare = nn.Linear(12, 5, bias=False)
        self.batch_norm = nn.BatchNorm2d(4, affine=False)
        self.layer_norm = nn.LayerNorm([8, 12])
        self.group_norm = nn.GroupNorm(2, 4)
        self.table = nn.Embedding(4, 3)
        self.volume = nn.Conv3d(1, 2, 2, dilation=2)
        self.register_buffer("order", torch.tensor([3, 0, 1]))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return one result a case."""
        return {name: case(x) for name, case in self.cases.items()}


def _layers(m: Many) -> Cases:
    return {
        "conv": lambda x: m.conv(x),
        "transposed": lambda x: m.transposed(x),
        "linear": lambda x: m.linear(x),
        "bare": lambda x: m.bare(x),
        "flat_linear": lambda x: m.linear(x.flatten(1)[:, :12]),
        "batch_norm": lambda x: m.batch_norm(x),
        "layer_norm": lambda x: m.layer_norm(x),
        "group_norm": lambda x: m.group_norm(x),
        "volume": lambda x: m.volume(x.unsqueeze(1)),
        "embedding": lambda x: m.table(m.order),
        "index_select": lambda x: x.index_select(1, m.order),  # type: ignore[arg-type]
    }


_ELEMENTWISE: Cases = {
    "add": lambda x: x + x.flip(1),
    "alpha": lambda x: torch.add(x, x[:, :1], alpha=2),
    "sub": lambda x: 2.5 - x,
    "mul": lambda x: x * 0.5,
    "div": lambda x: x / x.exp(),
    "relu": torch.relu,
    "relu6": F.relu6,
    "at_least": lambda x: x.clamp(min=0.25),
    "sigmoid": torch.sigmoid,
    "log_sigmoid": F.logsigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "mish": F.mish,
    "elu": lambda x: F.elu(x, 0.5),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.7),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softplus": lambda x: F.softplus(x, 2.0),
    "expm1": torch.expm1,
    "log1p": lambda x: torch.log1p(x.abs()),
    "erf": torch.erf,
    "sign": torch.sign,
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 1),
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 1),
    "pow": lambda x: x**3,
    "round": lambda x: torch.round(x * 4),
    "trunc": lambda x: torch.trunc(x * 4),
    "atan": torch.atan,
}
_REDUCTIONS: Cases = {
    "mean": lambda x: x.mean((1, 3)),
    "sum": lambda x: x.sum(-1, keepdim=True),
    "amax": lambda x: x.amax((2, 3)),
    "amin": lambda x: x.amin(1),
    "argmax": lambda x: x.argmax(1),
    "argmin": lambda x: x.argmin(-1, keepdim=True),
    "cumsum": lambda x: x.cumsum(2),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(1),
    "matmul": lambda x: x @ x.transpose(2, 3),
}
_FLOATING: Cases = {
    "eq": lambda x: torch.round(x) == torch.round(x.flip(1)),
    "ne": lambda x: torch.round(x) != 1,
    "gt": lambda x: x > 0.25,
    "le": lambda x: x <= x.flip(2),
    "and": lambda x: torch.logical_and(x > 0, x.flip(1) > 0),
    "not": lambda x: torch.logical_not(x > 0),
    "where": lambda x: torch.where(x > 0, x, x * 2),
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "remainder": lambda x: torch.remainder(x, 0.75),
    "fmod": lambda x: torch.fmod(x, x.abs() + 0.5),
    "floor_divide": lambda x: torch.div(x, x.abs() + 0.5, rounding_mode="floor"),
    "power": lambda x: torch.pow(x.abs(), x),
    "threshold": lambda x: F.threshold(x, 0.1, 20.0),
    "cast": lambda x: (x * 9).to(torch.int32),
    "triu": lambda x: torch.triu(x, 1),
    "gather": lambda x: torch.gather(x, 1, x.argmax(1, keepdim=True)),
    "scatter": lambda x: torch.scatter(x, 1, x.argmax(1, keepdim=True), x[:, :1]),
    "logsumexp": lambda x: torch.logsumexp(x, (1, 2)),
    "max_pool3d": lambda x: F.max_pool3d(x.unsqueeze(1), 2),
    "avg_pool3d": lambda x: F.avg_pool3d(x.unsqueeze(1), 2, padding=1),
}
_SPATIAL: Cases = {
    "max_pool": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "dilated_pool": lambda x: F.max_pool2d(x, 2, 1, dilation=2),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg_pool_uncounted": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "avg_pool_divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "global": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (4, 3)),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest_odd": lambda x: F.interpolate(x, size=(13, 17)),
    "linear": lambda x: F.interpolate(x, size=(13, 24), mode="bilinear"),
    "nearest_told": lambda x: F.interpolate(x, scale_factor=1.6),
    "linear_told": lambda x: F.interpolate(x, scale_factor=(1.3, 0.7), mode="bilinear"),
    "corners": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    "pad": lambda x: F.pad(x, (1, 0, 2, 1), value=0.5),
    "crop": lambda x: F.pad(x, (-1, 2)),
    "reflect": lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate"),
}
_MOVEMENT: Cases = {
    "cat": lambda x: torch.cat([x, x * 2], -2),
    "reshape": lambda x: x.reshape(x.shape[0], 2, -1, 8),
    "fold_batch": lambda x: x.reshape(-1, 12),
    "flatten": lambda x: x.flatten(1),
    "flatten_tail": lambda x: x.flatten(2),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "slice": lambda x: x[:, 1:, ::2, -3:],
    "select": lambda x: x[:, -1],
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1) + 0,
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "flip": lambda x: x.flip([1, 3]),
    "roll": lambda x: torch.roll(x, (3, -2), (2, 3)),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
}


def run(path: Path, *inputs: Tensor, optimized: bool = True) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize(
    "family", ["layers", "elementwise", "reductions", "spatial", "movement", "floating"]
)
def test_operators(family: str, opset: int, tmp_path: Path) -> None:
    families = {
        "elementwise": _ELEMENTWISE,
        "reductions": _REDUCTIONS,
        "spatial": _SPATIAL,
        "movement": _MOVEMENT,
        "floating": _FLOATING,
    }
    model = Many({})
    model.cases = _layers(model) if family == "layers" else families[family]
    graph = capture(model.eval(), torch.zeros(2, 4, 8, 12))
    path = export_onnx(graph, tmp_path / "x.onnx", opset)
    x = torch.randn(3, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    found = run(path, x)
    with evaluating(graph):
        expected = graph(x)
    written = onnx.load(path)
    assert [value.name for value in written.graph.output] == list(expected)
    assert written.opset_import[0].version == opset
    for (name, want), have in zip(expected.items(), found, strict=True):
        message = f"{name} at opset {opset}"
        np.testing.assert_allclose(have, want.numpy(), rtol=1e-4, atol=1e-5, err_msg=message)


# Rows that ONNX has no words for, or none that torch's meaning fits.
_NOT_WRITTEN = {
    "argsort",
    "bit_cast",
    "col2im",
    "cumprod",
    "diagonal",
    "fake_quantize",  # by onnx_export.quantization
    "getitem",  # by the exporter itself
    "grid_sampler_2d",
    "grid_sampler_3d",
    "max_pool2d_with_indices",
    "repeat_interleave",
    "shift_left",
    "shift_right",
}


def test_every_row_has_an_emitter() -> None:
    """A new row needs an emitter, or a line above."""
    float_rows = {row.name for row in rows() if {Level.CANONICAL, Level.QUANTIZED} & row.levels}
    assert set(emitted_rows()) == float_rows - _NOT_WRITTEN


@pytest.fixture(scope="module")
def quantized() -> Graph:
    """A residual block with a pool, a concatenation and a head, quantized on random images."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.second = nn.Conv2d(8, 8, 3, padding=1)
            self.third = nn.Conv2d(16, 4, 1)
            self.head = nn.Linear(4, 5)

        def forward(self, image: Tensor) -> Tensor:
            x = torch.relu(self.first(image))
            y = torch.relu(self.second(x) + x)
            z = F.max_pool2d(torch.cat([x, y], 1), 2)
            return self.head(F.silu(self.third(z)).mean((2, 3)))

    graph = capture(Block().eval(), torch.zeros(1, 3, 8, 8))
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return Pipeline([passes.InsertQDQ()]).run(graph, [images]).graph


def test_quantized(quantized: Graph, tmp_path: Path) -> None:
    path = export_onnx(quantized, tmp_path / "q.onnx")
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with evaluating(quantized):
        expected = quantized(x).numpy()
    (exact,) = run(path, x, optimized=False)
    np.testing.assert_allclose(exact, expected, rtol=1e-5, atol=1e-6)
    stored = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    for layer in ("first", "second", "third", "head"):
        assert stored[f"{layer}.weight"].data_type == onnx.TensorProto.INT8
        assert stored[f"{layer}.bias_quantized"].data_type == onnx.TensorProto.INT32
    floats = [t for t in stored.values() if t.data_type == onnx.TensorProto.FLOAT]
    assert max(numpy_helper.to_array(tensor).size for tensor in floats) == 8  # scales only
    assert "Relu" not in operators(path)  # the quantization clamps as much


def test_onnx_runtime_fuses(quantized: Graph, tmp_path: Path) -> None:
    """Every layer, addition and concatenation runs on integers there."""
    path, optimized = export_onnx(quantized, tmp_path / "q.onnx"), tmp_path / "o.onnx"
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(optimized)
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = operators(optimized)
    assert found.count("QLinearConv") == 3
    assert {"QLinearAdd", "QLinearConcat", "QGemm"} <= set(found)
    assert not {"Conv", "Add", "Gemm", "Concat"} & set(found)


def test_narrow_ranges_are_clipped(tmp_path: Path) -> None:
    graph = capture(nn.Conv2d(2, 2, 1).eval(), torch.zeros(1, 2, 3, 3))
    graph = Pipeline([passes.InsertQDQ()]).run(graph, [torch.rand(4, 2, 3, 3)]).graph
    for node in graph.calls:
        if node.args[-1] == 255:
            node.update_arg(len(node.args) - 1, 63)
    graph.infer()
    path = export_onnx(graph, tmp_path / "x.onnx")
    x = 9 * torch.rand(4, 2, 3, 3) - 3
    with evaluating(graph):
        expected = graph(x).numpy()
    np.testing.assert_allclose(run(path, x, optimized=False)[0], expected, atol=1e-6)
    assert operators(path).count("Clip") == 2


def test_names_and_open_batch(graph: Graph) -> None:
    model = onnx_model(graph)
    (image,) = model.graph.input
    assert image.name == graph.inputs[0].name
    assert image.type.tensor_type.shape.dim[0].dim_param == "batch"
    names = [node.name for node in model.graph.node]
    assert {"stem", "conv", "head"} <= set(names)
    assert len(names) == len(set(names))
    assert "stem.weight" in {tensor.name for tensor in model.graph.initializer}


def test_an_input_that_is_returned(tmp_path: Path) -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y = x + 1
            return x, y, y

    graph = capture(Same(), torch.zeros(2, 3))
    x = torch.rand(2, 3)
    found = run(export_onnx(graph, tmp_path / "x.onnx"), x)
    for have, want in zip(found, (x, x + 1, x + 1), strict=True):
        np.testing.assert_array_equal(have, want.numpy())


def test_refusals(quantized: Graph, graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    integer = Pipeline([passes.LowerToInteger()]).run(quantized).graph
    with pytest.raises(ModelError, match="export the quantized graph"):
        export_onnx(integer, path)
    with pytest.raises(OptionError, match="opset 12 can't be written"):
        export_onnx(graph, path, 12)
    uneven = capture(nn.AdaptiveAvgPool2d(3), torch.zeros(2, 1, 7, 7))
    with pytest.raises(OperatorError, match="windows of several sizes"):
        export_onnx(uneven, path)
    with pytest.raises(PlanishError, match="can't write"):
        export_onnx(graph, tmp_path / "missing" / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_resize_by_a_told_scale_comes_back(tmp_path: Path) -> None:
    class Resizes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(x, scale_factor=3.7, mode="bilinear")

    graph = capture(Resizes(), torch.zeros(1, 2, 3, 3))
    again = capture(export_onnx(graph, tmp_path / "x.onnx"))
    x = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(x), graph(x))


def test_what_is_no_graph_or_no_path_is_told(tmp_path: Path) -> None:
    graph = capture(nn.Linear(3, 4), torch.zeros(1, 3))
    with pytest.raises(ModelError, match="a Linear is no graph"):
        export_onnx(nn.Linear(3, 4), tmp_path / "x.onnx")  # type: ignore[arg-type]
    for path in (None, "a\0b"):
        with pytest.raises(OptionError, match="is no path"):
            export_onnx(graph, path)  # type: ignore[arg-type]
    graph.annotations["teacher-hooks"] = {}
    with pytest.raises(ModelError, match="still carries teacher-hooks"):
        export_onnx(graph, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())

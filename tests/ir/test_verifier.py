"""Each invariant, broken on purpose: the verifier names it, and the node."""

from collections.abc import Callable

import pytest
import torch

from planish.ir import Graph, InputSpec, Level, VerifyError, verify
from planish.ir.verifier import problems

aten = torch.ops.aten


def call(graph: Graph, name: str) -> torch.fx.Node:
    return next(node for node in graph.calls if node.name == name)


def codes(graph: Graph) -> set[str]:
    return {problem.code for problem in problems(graph)}


def test_a_sound_graph_has_no_problems(graph: Graph) -> None:
    assert problems(graph) == []


def break_order(graph: Graph) -> None:
    call(graph, "conv2d").append(next(n for n in graph.nodes if n.target == "conv.weight"))


def break_inputs(graph: Graph) -> None:
    graph.inputs.append(InputSpec("more", (None, 3), torch.float32))


def break_attribute(graph: Graph) -> None:
    graph.set_attribute("spare.weight", torch.zeros(1))


def break_shape(graph: Graph) -> None:
    call(graph, "relu").meta["val"] = torch.zeros(1, 4, 6, 7)


def break_finite(graph: Graph) -> None:
    with torch.no_grad():
        graph.attribute("fc.bias")[0] = float("nan")


def break_row(graph: Graph) -> None:
    node = call(graph, "relu")
    node.target = aten.relu6.default
    graph.infer()


def break_functional(graph: Graph) -> None:
    node = call(graph, "relu")
    node.target = aten.relu_.default
    graph.infer()


def break_liveness(graph: Graph) -> None:
    node = call(graph, "relu")
    with graph.fx.inserting_after(node):
        dead = graph.fx.call_function(aten.relu.default, (node,))
    dead.meta["origin"] = node.meta["origin"]
    graph.infer()


def break_origin(graph: Graph) -> None:
    del call(graph, "relu").meta["origin"]


def break_level(graph: Graph) -> None:
    node = call(graph, "relu")
    node.target, node.args = torch.ops.planish.clamp_i8.default, (node.args[0], 0, 3)
    graph.infer()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (break_order, "S1"),
        (break_inputs, "S2"),
        (break_attribute, "S3"),
        (break_shape, "S4"),
        (break_finite, "S5"),
        (break_row, "C1"),
        (break_level, "C1"),
        (break_functional, "C2"),
        (break_liveness, "C3"),
        (break_origin, "C4"),
    ],
)
def test_a_broken_invariant_is_found(
    graph: Graph, change: Callable[[Graph], None], code: str
) -> None:
    change(graph)
    assert code in codes(graph)


def test_the_error_collects_everything_and_shows_the_place(graph: Graph) -> None:
    break_shape(graph)
    break_origin(graph)
    with pytest.raises(VerifyError) as error:
        verify(graph, after="my-pass")
    lines = str(error.value).splitlines()
    assert lines[0] == "my-pass: the canonical graph breaks 2 invariant(s)"
    assert any(line.lstrip().startswith("--> %relu") for line in lines)
    assert sum("%" in line for line in lines) > 3


def quantized(scale: float, zero_point: int) -> Graph:
    graph = Graph(
        torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph()),
        Level.QUANTIZED,
        [InputSpec("x", (None, 3), torch.float32)],
        0,
    )
    graph.set_attribute("s", torch.tensor(scale))
    graph.set_attribute("z", torch.tensor(zero_point, dtype=torch.int32))
    x = graph.fx.placeholder("x")
    operands = (x, graph.fx.get_attr("s"), graph.fx.get_attr("z"), None, 0, 255)
    node = graph.fx.call_function(torch.ops.planish.fake_quantize.default, operands)
    from planish.ir import Origin

    node.meta["origin"] = Origin("x")
    graph.fx.output((node,))
    return graph.infer()


def test_quantized_level() -> None:
    assert codes(quantized(0.1, 3)) == set()
    assert codes(quantized(0.0, 3)) == {"Q1"}
    assert codes(quantized(-1.0, 3)) == {"Q1"}
    assert codes(quantized(0.1, 300)) == {"Q1"}


def integer(weight: torch.dtype, hi: int, spoil: bool = False) -> Graph:
    graph = Graph(
        torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph()),
        Level.INTEGER,
        [InputSpec("x", (None, 3), torch.float32)],
        0,
    )
    graph.set_attribute("w", torch.zeros(2, 3, dtype=weight))
    graph.set_attribute("m", torch.ones(2))
    from planish.ir import Origin

    def add(target: object, *args: object) -> torch.fx.Node:
        node = graph.fx.call_function(target, args)  # type: ignore[arg-type]
        node.meta["origin"] = Origin("x")
        return node

    ops = torch.ops.planish
    x = graph.fx.placeholder("x")
    q = add(ops.quantize.default, x, 0.1, 0, 0, 255, torch.uint8)
    q = add(aten.relu.default, q) if spoil else q
    w, m = graph.fx.get_attr("w"), graph.fx.get_attr("m")
    y = add(ops.linear_i8.default, q, w, None, m, 0, 0, 0, hi, torch.uint8)
    graph.fx.output((add(ops.dequantize.default, y, 0.1, 0),))
    return graph.infer()


def test_integer_level() -> None:
    assert codes(integer(torch.int8, 255)) == set()
    assert codes(integer(torch.int16, 255)) == {"I2"}
    assert codes(integer(torch.int8, 256)) == {"I3"}
    assert codes(integer(torch.int8, 255, spoil=True)) == {"I1"}


def one_operator(name: str, *args: object, dtype: torch.dtype = torch.uint8) -> Graph:
    """A graph of quantize, one integer operator on [n, 3, 4, 4], and dequantize.

    A tensor among the arguments is stored; "x" stands for the quantized value.
    """
    from planish.ir import Origin

    graph = Graph(
        torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph()),
        Level.INTEGER,
        [InputSpec("x", (None, 3, 4, 4), torch.float32)],
        0,
    )

    def add(target: object, *operands: object) -> torch.fx.Node:
        node = graph.fx.call_function(target, operands)  # type: ignore[arg-type]
        node.meta["origin"] = Origin("x")
        return node

    ops = torch.ops.planish
    low, high = (0, 255) if dtype == torch.uint8 else (-128, 127)
    x = add(ops.quantize.default, graph.fx.placeholder("x"), 0.1, 0, low, high, dtype)
    operands: list[object] = []
    for index, value in enumerate(args):
        if isinstance(value, torch.Tensor):
            graph.set_attribute(f"t{index}", value)
            operands.append(graph.fx.get_attr(f"t{index}"))
        else:
            operands.append(x if isinstance(value, str) else value)
    y = add(getattr(ops, name).default, *operands)
    graph.fx.output((add(ops.dequantize.default, y, 0.1, 0),))
    return graph.infer()


U8 = (0, 0, 255, torch.uint8)
ROW = torch.tensor([[0, 1]] * 4, dtype=torch.int32)
HALVES = torch.full((4, 2), 512, dtype=torch.int32)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (
            ("add_i8", "x", "x", 0, 0, 32767, -32767, 15, *U8),
            ("add_i8", "x", "x", 0, 0, 32767, -32768, 15, *U8),
        ),
        (
            ("table_i8", "x", torch.zeros(256, dtype=torch.uint8)),
            ("table_i8", "x", torch.zeros(255, dtype=torch.uint8)),
        ),
        (
            ("softmax_i8", "x", torch.full((256,), 2**23, dtype=torch.int32), 1, 255.0, *U8),
            ("softmax_i8", "x", torch.full((256,), 2**24, dtype=torch.int32), 1, 255.0, *U8),
        ),
        (
            ("softmax_i8", "x", torch.full((256,), 2**23, dtype=torch.int32), -1, 255.0, *U8),
            ("softmax_i8", "x", torch.full((256,), 2**23, dtype=torch.int32), 0, 255.0, *U8),
        ),
        (
            ("layer_norm_i8", "x", torch.ones(4), ROW[0, 0].expand(4), 1, 5, 0, *U8),
            ("layer_norm_i8", "x", torch.ones(4), torch.full((4,), 2**23).int(), 1, 5, 0, *U8),
        ),
        (
            ("layer_norm_i8", "x", torch.ones(4), ROW[0, 0].expand(4), 1, 5, 0, *U8),
            ("layer_norm_i8", "x", torch.ones(4), ROW[0, 0].expand(4), 1, -1, 0, *U8),
        ),
        (
            ("mean_i8", "x", [1, 3], True, 0.5, 0, *U8),
            ("mean_i8", "x", [0], True, 0.5, 0, *U8),
        ),
        (
            ("resize_i8", "x", ROW, HALVES, ROW, HALVES, 0.5, 0, *U8),
            ("resize_i8", "x", ROW, HALVES, ROW + 3, HALVES, 0.5, 0, *U8),
        ),
        (
            ("resize_i8", "x", ROW, HALVES, ROW, HALVES, 0.5, 0, *U8),
            ("resize_i8", "x", ROW, HALVES + 1, ROW, HALVES, 0.5, 0, *U8),
        ),
        (("pad_i8", "x", [1, 1], 255), ("pad_i8", "x", [1, 1], -1)),
    ],
)
def test_constants_leave_room(good: tuple[object, ...], bad: tuple[object, ...]) -> None:
    assert codes(one_operator(*good)) == set()  # type: ignore[arg-type]
    assert codes(one_operator(*bad)) == {"I4"}  # type: ignore[arg-type]


def test_multipliers_are_finite_and_padding_is_quantized() -> None:
    assert codes(one_operator("mul_i8", "x", "x", 0.5, 0, 0, *U8)) == set()
    assert codes(one_operator("mul_i8", "x", "x", -0.5, 0, 0, *U8)) == {"I2"}
    padded = one_operator("pad_i8", "x", [1, 1], 0)
    (node,) = [n for n in padded.calls if n.target is torch.ops.planish.pad_i8.default]
    node.target = aten.constant_pad_nd.default
    assert codes(padded.infer()) == {"I1"}

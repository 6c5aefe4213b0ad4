"""Which channels are coupled, and which ones may not go, with the reason."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planish import capture
from planish.ir import Graph, OperatorError
from planish.passes.pruning.channel_groups import ChannelGroups, channel_groups


class Net(nn.Module):
    """Layers by name, and a function that says how they are connected."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, forward: Callable[["Net", Tensor], Tensor], **parts: object) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the function makes of `x`."""
        return self._forward(self, x)


def conv(made: int, out: int, kernel: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(made, out, kernel, padding=kernel // 2, groups=groups)


def analyse(model: nn.Module, *shape: int) -> tuple[Graph, ChannelGroups]:
    graph = capture(model.eval(), torch.zeros(2, *(shape or (3, 4, 4))))
    return graph, channel_groups(graph)


def units(groups: ChannelGroups) -> dict[str, list[int]]:
    return {layer.name: layer.units.tolist() for layer in groups.layers}


def cuts(groups: ChannelGroups, tensor: str) -> dict[int, list[int]]:
    return {cut.axis: cut.units.tolist() for cut in groups.cuts if cut.tensor == tensor}


def reasons(groups: ChannelGroups) -> dict[str, str]:
    """Map each layer that may not lose its first channel to the reason."""
    firsts = {layer.name: int(layer.units[0]) for layer in groups.layers}
    return {n: groups.protected[unit] for n, unit in firsts.items() if unit in groups.protected}


# What is followed.


def test_a_chain_has_a_unit_a_channel() -> None:
    _, groups = analyse(nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 2)))
    made = units(groups)["0"]
    assert len(set(made)) == 4
    for tensor in ("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        assert cuts(groups, tensor) == {0: made}
    assert cuts(groups, "3.weight")[1] == made
    assert reasons(groups) == {"3": "part of the model's output"}


def test_a_residual_couples_both_sides() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        return net.c(x + net.b(x))

    _, groups = analyse(Net(forward, a=conv(3, 4), b=conv(4, 4), c=conv(4, 2)))
    assert units(groups)["a"] == units(groups)["b"] == cuts(groups, "c.weight")[1]
    assert [group.layers for group in groups.groups] == [((0, 1), (1, 1)), ((2, 1),)]


def test_concatenation_has_offsets() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.c(torch.cat([net.a(x), x, net.b(x)], 1))

    _, groups = analyse(Net(forward, a=conv(3, 4), b=conv(3, 2), c=conv(9, 2)))
    read = cuts(groups, "c.weight")[1]
    assert read[:4] == units(groups)["a"]
    assert read[7:] == units(groups)["b"]
    assert [groups.protected[unit] for unit in read[4:7]] == ["tied to the model's input 'x'"] * 3


def test_concatenation_along_another_axis_ties() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.c(torch.cat([net.a(x), net.b(x)], -1))

    _, groups = analyse(Net(forward, a=conv(3, 4), b=conv(3, 4), c=conv(4, 2)))
    assert units(groups)["a"] == units(groups)["b"]
    assert "a" not in reasons(groups)


def test_flatten_makes_runs_of_features() -> None:
    _, groups = analyse(nn.Sequential(conv(3, 2), nn.Flatten(), nn.Linear(32, 5)))
    first, second = units(groups)["0"]
    assert cuts(groups, "2.weight")[1] == [first] * 16 + [second] * 16


def test_depthwise_ties_inputs_to_outputs() -> None:
    _, groups = analyse(nn.Sequential(conv(3, 4), conv(4, 8, 3, groups=4), conv(8, 2)))
    made = units(groups)["0"]
    assert units(groups)["1"] == [unit for unit in made for _ in range(2)]
    assert list(cuts(groups, "1.weight")) == [0]
    assert [u.tolist() for u in groups.group_counts.values()] == [made]
    assert groups.groups[0].layers == ((0, 1), (1, 2))


def test_grouped_convolution_ties_positions() -> None:
    _, groups = analyse(nn.Sequential(conv(3, 6), conv(6, 4, groups=2), conv(4, 2)))
    a, b = units(groups)["0"], units(groups)["1"]
    assert a[:3] == a[3:]
    assert b[:2] == b[2:]
    assert cuts(groups, "1.weight") == {0: b, 1: a[:3]}
    assert groups.group_counts == {}


def test_constants_of_a_channel_follow() -> None:
    constant = nn.Parameter(torch.ones(4, 1, 1))

    def forward(net: Net, x: Tensor) -> Tensor:
        return net.b(net.a(x) * net.scale + net.one)

    parts = {
        "a": conv(3, 4),
        "b": conv(4, 2),
        "scale": constant,
        "one": nn.Parameter(torch.ones(1)),
    }
    _, groups = analyse(Net(forward, **parts))
    assert cuts(groups, "scale") == {0: units(groups)["a"]}
    assert cuts(groups, "one") == {}
    assert "a" not in reasons(groups)


def test_a_layer_called_twice_is_one_decision() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.c(torch.relu(net.b(torch.relu(net.b(net.a(x))))))

    _, groups = analyse(Net(forward, a=conv(3, 4), b=conv(4, 4), c=conv(4, 2)))
    assert len(groups.layers) == 4
    assert all(layer.units.tolist() == units(groups)["a"] for layer in groups.layers[:3])
    assert cuts(groups, "b.weight") == {0: units(groups)["a"], 1: units(groups)["a"]}


def test_one_tensor_under_two_names_is_one_tensor() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.c(net.a(x) - net.b(2 * x))

    graph, _ = analyse(Net(forward, a=conv(3, 4), b=conv(3, 4), c=conv(4, 2)))
    a, b = (graph.module.get_submodule(name) for name in "ab")
    assert isinstance(a.weight, nn.Parameter)
    b.weight = a.weight
    assert [cut.tensor for cut in channel_groups(graph).cuts].count("b.weight") == 0
    b.weight = nn.Parameter(a.weight.data)
    groups = channel_groups(graph)
    assert "shares its memory" in reasons(groups)["a"]


def test_linear_layers_have_channels_on_the_last_axis() -> None:
    layers = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Dropout(), nn.Linear(6, 5))
    _, groups = analyse(layers, 7, 5)
    assert reasons(groups) == {"3": "part of the model's output"}
    assert cuts(groups, "3.weight")[1] == units(groups)["0"]


# What keeps its channels.


def shuffle(net: Net, x: Tensor) -> Tensor:
    y = net.a(x).view(-1, 2, 2, 4, 4).transpose(1, 2).reshape(-1, 4, 4, 4)
    return net.b(y)


def halves(net: Net, x: Tensor) -> Tensor:
    left, right = net.a(x).chunk(2, 1)
    return net.b(torch.cat([right, left], 1))


def attention(net: Net, x: Tensor) -> Tensor:
    y = net.a(x).flatten(2)
    return net.b(torch.matmul(y, y.transpose(1, 2)).unsqueeze(-1))


def computed_weight(net: Net, x: Tensor) -> Tensor:
    return net.b(F.conv2d(net.a(x), net.w * 2))


MIXES = "which mixes or moves channels"
HELD = {
    "input": (lambda net, x: net.b(net.a(x) + x), {"a": conv(3, 3), "b": conv(3, 2)}, "a",
        "tied to the model's input 'x'"),
    "softmax": (lambda net, x: net.b(net.a(x).softmax(1)), {}, "a", f"softmax (softmax), {MIXES}"),
    "shuffle": (shuffle, {}, "a", MIXES),
    "chunk": (halves, {}, "a", MIXES),
    "pad": (lambda net, x: net.b(torch.constant_pad_nd(net.a(x), [0, 0, 0, 0, 1, 0])),
        {"b": conv(5, 2)}, "a", MIXES),
    "attention": (attention, {}, "a", MIXES),
    "layer norm": (lambda net, x: net.b(net.n(net.a(x))), {"n": nn.LayerNorm([4, 4, 4])}, "a",
        f"layer_norm (n), {MIXES}"),
    "group norm": (lambda net, x: net.b(net.n(net.a(x))), {"n": nn.GroupNorm(2, 4)}, "a",
        f"group_norm (n), {MIXES}"),
    "linear on an image": (lambda net, x: net.b(net.n(net.a(x))), {"n": nn.Linear(4, 4)}, "a",
        "not on the axis that linear (n) takes for channels"),
    "channels meet columns": (lambda net, x: net.b(net.a(x) + net.n(net.c(x))),
        {"n": nn.Linear(4, 4), "c": conv(3, 4)}, "n", "axis that add (add) takes for channels"),
    "gate of one channel": (lambda net, x: net.b(net.a(x) * net.n(x)), {"n": conv(3, 1)}, "n",
        "spread over the channels of mul"),
    "computed weight": (computed_weight, {"w": nn.Parameter(torch.ones(4, 4, 1, 1))}, "a",
        f"read by conv2d (conv2d), {MIXES}"),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_reason(name: str) -> None:
    forward, parts, layer, reason = HELD[name]
    model = Net(forward, **{"a": conv(3, 4), "b": conv(4, 2), **parts})
    _, groups = analyse(model)
    assert reason in reasons(groups)[layer]
    assert all(unit in groups.protected for unit in units(groups)[layer])


def test_batch_norm_of_tokens_holds_the_features() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(7), nn.Linear(6, 5))
    _, groups = analyse(model, 7, 5)
    assert "takes for channels" in reasons(groups)["0"]


def test_pooling_that_takes_features_for_columns_holds_them() -> None:
    _, groups = analyse(nn.Sequential(nn.Linear(8, 8), nn.MaxPool2d(2), nn.Linear(4, 5)), 7, 8)
    assert "unsqueeze" in reasons(groups)["0"]  # the image has no batch axis: it gets one


def test_a_computed_bias_holds_what_it_scales() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.b(F.conv2d(x, net.w, net.v * 2))

    parts = {"w": nn.Parameter(torch.ones(4, 3, 1, 1)), "v": nn.Parameter(torch.ones(4))}
    _, groups = analyse(Net(forward, b=conv(4, 2), **parts))
    assert "scaled by a computed tensor" in reasons(groups)["conv2d"]


def test_a_weight_that_another_operator_needs_whole_stays() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        tied = F.linear(x, net.w)
        return torch.matmul(net.b(torch.relu(tied)), net.w)

    _, groups = analyse(Net(forward, w=nn.Parameter(torch.ones(4, 3)), b=nn.Linear(4, 4)), 3)
    (tied,) = (layer for layer in groups.layers if layer.name != "b")
    assert "'w' is also read by matmul, which needs all of it" in groups.protected[tied.units[0]]


def test_an_operator_without_a_row_is_an_error() -> None:
    with pytest.raises(OperatorError, match="logcumsumexp"):
        analyse(Net(lambda net, x: net.b(net.a(x).logcumsumexp(1)), a=conv(3, 4), b=conv(4, 2)))

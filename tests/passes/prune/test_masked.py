"""A pruned network computes exactly what the masked one does, on random networks.

The mask is made without the analysis under test. The user's own model runs with hooks: a layer's
removed channels (known by their biases, which are all different) become NaN behind it, and spread
through whatever the model does with them; the next layer reads zero in their place. Should a
removed channel meet one that was kept, the NaN reaches the output, or a zero stands where pruning
left a value. All numbers are small binary fractions, so that sums are exact in any order.
"""

import copy
import random
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from planish import capture
from planish.ir import Graph, PassError, verify
from planish.passes import Context, PruneChannels

SIZE = 4
KINDS = (
    "conv",
    "grouped",
    "depthwise",
    "multiplied",
    "gathered",
    "norm",
    "relu",
    "shift",
    "pool",
    "constant",
    "residual",
    "join",
    "cat",
    "gate",
    "again",
)


class Clamped(nn.Module):
    """A convolution whose results stay small."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the clamped convolution."""
        return self.conv(x).clamp(-16, 16)


class Constant(nn.Module):
    """Adds one number a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.arange(channels).view(channels, 1, 1) - 2.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        return x + self.offset


class RandomNet(nn.Module):
    """Steps of the given kinds over the values made so far; images are 3 x 4 x 4."""

    def __init__(self, kinds: list[str], seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.widths: list[int] = []
        self.layers = nn.ModuleList()
        self.plan: list[tuple[str, int, int, int]] = []  # kind, module, operands
        self._add("conv", self._clamped(3, self.random.choice((4, 6, 8))), -1)
        for kind in kinds:
            getattr(self, f"_{kind}")(self.random.randrange(len(self.widths)))
        last = self.widths[-1]
        self.pooled = self.random.choice((True, False))
        self.hidden = nn.Linear(last if self.pooled else last * SIZE * SIZE, 6)
        self.head = nn.Linear(6, 3)
        self._exact(seed)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, 3]."""
        values: list[Tensor] = []
        for kind, module, left, right in self.plan:
            first = values[left] if left >= 0 else x
            if kind == "join":
                values.append(first + values[right])
            elif kind == "cat":
                values.append(torch.cat([first, values[right]], 1))
            elif kind == "shift":
                values.append((first + 3).clamp(min=1))
            elif kind == "gate":
                values.append((first * self.layers[module](first)).clamp(-16, 16))
            else:
                made = self.layers[module](first)
                values.append(made + values[right] if kind == "residual" else made)
        y = nn.functional.adaptive_avg_pool2d(values[-1], 1) if self.pooled else values[-1]
        return self.head(torch.relu(self.hidden(y.flatten(1))))

    def _exact(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)

        def whole(tensor: Tensor, low: int, high: int) -> Tensor:
            return torch.randint(low, high + 1, tensor.shape, generator=draw).to(tensor)

        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.data = whole(module.weight, -2, 2)
                assert module.bias is not None
                count = module.weight.shape[0]
                module.bias.data = torch.randperm(count, generator=draw) - count // 2.0
            elif isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.eps = 0.0
                module.running_mean.copy_(whole(module.running_mean, -3, 3))
                module.running_var.copy_(4.0 ** whole(module.running_var, -1, 1))
                module.weight.data = 2.0 ** whole(module.weight, -1, 1)
                module.bias.data = whole(module.bias, -2, 2)

    def _add(self, kind: str, module: nn.Module | None, left: int, right: int = -1) -> None:
        if module is not None:
            self.layers.append(module)
        self.plan.append((kind, len(self.layers) - 1, left, right))
        self.widths.append(self._width(kind, module, left, right))

    def _width(self, kind: str, module: nn.Module | None, left: int, right: int) -> int:
        if kind == "cat":
            return self.widths[left] + self.widths[right]
        if isinstance(module, Clamped) and kind != "gate":
            return module.conv.out_channels
        return self.widths[left]

    def _clamped(self, made: int, out: int, groups: int = 1) -> nn.Module:
        kernel = self.random.choice((1, 3))
        return Clamped(made, out, kernel, padding=kernel // 2, groups=groups)

    def _step_conv(self, source: int, out: int, groups: int) -> None:
        self._add("conv", self._clamped(self.widths[source], out, groups), source)

    def _grouped(self, source: int) -> None:
        even = self.widths[source] % 2 == 0
        self._step_conv(source, self.random.choice((4, 6, 8)), 2 if even else 1)

    def _depthwise(self, source: int) -> None:
        self._step_conv(source, self.widths[source], self.widths[source])

    def _multiplied(self, source: int) -> None:
        self._step_conv(source, 2 * self.widths[source], self.widths[source])

    def _gathered(self, source: int) -> None:
        even = self.widths[source] % 2 == 0
        half = self.widths[source] // 2
        self._step_conv(source, half if even else 4, half if even else 1)

    def _conv(self, source: int) -> None:
        self._step_conv(source, self.random.choice((4, 6, 8)), 1)

    def _norm(self, source: int) -> None:
        self._add("norm", nn.BatchNorm2d(self.widths[source]), source)

    def _relu(self, source: int) -> None:
        self._add("relu", nn.ReLU(), source)

    def _pool(self, source: int) -> None:
        self._add("pool", nn.MaxPool2d(3, 1, 1), source)

    def _constant(self, source: int) -> None:
        self._add("constant", Constant(self.widths[source]), source)

    def _shift(self, source: int) -> None:
        self._add("shift", None, source)

    def _residual(self, source: int) -> None:
        other = self.random.randrange(len(self.widths))
        self._add("residual", self._clamped(self.widths[source], self.widths[other]), source, other)

    def _join(self, source: int) -> None:
        alike = [i for i, width in enumerate(self.widths) if width == self.widths[source]]
        self._add("join", None, source, self.random.choice(alike))

    def _cat(self, source: int) -> None:
        self._add("cat", None, source, self.random.randrange(len(self.widths)))

    def _gate(self, source: int) -> None:
        self._add("gate", self._clamped(self.widths[source], 1), source)

    def _again(self, source: int) -> None:
        """Call an earlier convolution a second time, on another value."""
        fits = [
            index
            for index, module in enumerate(self.layers)
            if isinstance(module, Clamped) and module.conv.in_channels == self.widths[source]
        ]
        if fits:
            module = self.layers[self.random.choice(fits)]
            assert isinstance(module, Clamped)
            index = [*self.layers].index(module)
            self.plan.append(("conv", index, source, -1))
            self.widths.append(module.conv.out_channels)


def masked(model: nn.Module, pruned: Graph) -> nn.Module:
    """Return a copy of the model that ignores what `pruned` has lost."""
    copied, stored = copy.deepcopy(model), pruned.attributes
    for name, module in copied.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or f"{name}.bias" not in stored:
            continue  # what the output doesn't depend on is not in the graph
        assert module.bias is not None
        left = set(pruned.attribute(f"{name}.bias").tolist())
        gone = [i for i, value in enumerate(module.bias.tolist()) if value not in left]

        def ignore(_: nn.Module, args: tuple[Tensor]) -> Tensor:
            return torch.nan_to_num(args[0], nan=0.0)

        def poison(_: nn.Module, __: Any, output: Tensor, gone: list[int] = gone) -> Tensor:
            output[:, gone] = torch.nan
            return output

        module.register_forward_pre_hook(ignore)
        module.register_forward_hook(poison)
    return copied


def whole_images(seed: int, count: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, (count, 3, SIZE, SIZE), generator=draw).double()


PRUNINGS = (
    PruneChannels(ratio=0.2, ranking="group"),
    PruneChannels(ratio=0.4, multiple=2, importance="l2"),
    PruneChannels(macs=0.6, minimum=2),
    PruneChannels(parameters=0.3, protect=("layers.0.conv",)),
)


@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate])
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=3, max_size=7), seed=st.integers(0, 999))
def test_pruned_equals_masked(kinds: list[str], seed: int) -> None:
    check_random_net(kinds, seed)


def check_random_net(kinds: list[str], seed: int) -> int:
    """Prune one network in several ways; return in how many it could be."""
    model, x, pruned = RandomNet(kinds, seed), whole_images(seed), 0
    whole = capture(model, torch.zeros(2, 3, SIZE, SIZE, dtype=torch.float64))
    assert torch.equal(whole(x), model(x))
    for options in PRUNINGS:
        try:
            result = options.run(whole.copy(), Context())
        except PassError:
            continue
        pruned += 1
        verify(result.graph)
        assert torch.equal(result.graph(x), masked(model, result.graph)(x))
        for was, now in result.notes["layers"].values():
            assert now == was or (now >= options.minimum and now % (options.multiple or 1) == 0)
    return pruned


def test_the_mask_notices_a_wrong_channel() -> None:
    """The oracle itself: a graph that lost one channel and reads without another is different."""
    model = RandomNet(["norm", "relu"], 0)
    graph = capture(model, torch.zeros(2, 3, SIZE, SIZE, dtype=torch.float64))
    name, weight = next(
        (name, tensor) for name, tensor in graph.attributes.items() if name == "hidden.weight"
    )
    result = PruneChannels(ratio=0.5).run(graph.copy(), Context())
    x = whole_images(1)
    assert torch.equal(result.graph(x), masked(model, result.graph)(x))
    smaller = result.graph.attribute(name)
    wrong = weight[: smaller.shape[0], : smaller.shape[1]]
    assert not torch.equal(wrong, smaller)
    result.graph.set_attribute(name, wrong, trainable=True)
    assert not torch.equal(result.graph(x), masked(model, result.graph)(x))


def test_functions_that_round_are_close() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Sigmoid(), nn.Conv2d(8, 8, 3), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ).double().eval()  # fmt: skip
    graph = capture(model, torch.zeros(2, 3, 6, 6, dtype=torch.float64))
    result = PruneChannels(macs=0.4).run(graph, Context())
    x = torch.randn(3, 3, 6, 6, dtype=torch.float64)
    expected = masked(model, result.graph)(x)
    torch.testing.assert_close(result.graph(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_alone(kind: str) -> None:
    model = RandomNet([kind, "conv", kind], 1)
    graph = capture(model, torch.zeros(2, 3, SIZE, SIZE, dtype=torch.float64))
    result = PruneChannels(ratio=0.3).run(graph, Context())
    x = whole_images(1)
    assert result.changed
    assert torch.equal(result.graph(x), masked(model, result.graph)(x))

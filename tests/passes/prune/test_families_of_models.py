"""Pruning of transformers, signals, detectors and recurrent networks removes what may go, no more.

Every second channel of every layer is zero, and every function between layers maps zero to zero.
Removing a quarter of the free channels then changes nothing, if the right ones go everywhere.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planish import capture
from planish.ir import verify
from planish.passes import Context, PruneChannels


class Encoder(nn.Module):
    """Convolved patches and one block of torch's encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(block, 1, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, 3, 8, 8]."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(tokens).mean(1))


class Recurrent(nn.Module):
    """Convolutions of a signal, an LSTM over it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.second, self.third = nn.Conv1d(8, 8, 3, groups=8), nn.Conv1d(8, 6, 3)
        self.memory, self.head = nn.LSTM(6, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, 3, 8]."""
        y = F.silu(self.third(self.second(F.relu(self.norm(self.first(x))))))
        steps, _ = self.memory(y.transpose(1, 2))
        return self.head(steps[:, -1])


class Pyramid(nn.Module):
    """A U-Net with a pyramid of pools, interpolations and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.c = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(24, 8, 1)
        self.d, self.head = nn.Conv2d(24, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, 3, 8, 8]."""
        e = F.mish(self.a(x))
        f = F.silu(self.b(F.max_pool2d(e, 2)))
        pools = [F.max_pool2d(f, 3, 1, 1), F.avg_pool2d(f, 3, 1, 1)]
        f = F.hardswish(self.c(torch.cat([f, *pools], 1)))
        larger = [F.interpolate(f, scale_factor=2), F.interpolate(f, size=(8, 8), mode="bilinear")]
        y = torch.cat([e, larger[0] + larger[1], self.up(f)], 1)
        return self.head(F.gelu(self.d(y)))


class Shuffled(nn.Module):
    """What moves channels about: shuffles, rolls, selections, products with stored tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.c, self.head = nn.Conv2d(8, 16, 1), nn.Linear(8, 5)
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, 3, 4, 4]."""
        y = F.channel_shuffle(F.relu(self.a(x)), 2).roll(1, 1)[:, [1, 0, 3, 2, 5, 4, 7, 6]]
        y = F.prelu(self.b(y * self.scale), torch.linspace(0.1, 0.8, 8))
        return self.head(F.glu(self.c(y), 1).amax((2, 3)))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "encoder": (Encoder, (2, 3, 8, 8)),
    "recurrent": (Recurrent, (2, 3, 8)),
    "pyramid": (Pyramid, (2, 3, 8, 8)),
    "shuffled": (Shuffled, (2, 3, 4, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_only_zeros_go(name: str) -> None:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(shape)
    zeroed = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm1d)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, zeroed) and module.weight.shape[0] % 2 == 0:
                module.weight[::2] = 0.0
                assert module.bias is not None
                module.bias[::2] = 0.0
    graph = capture(model, x)
    result = PruneChannels(ratio=0.25).run(graph.copy(), Context())
    verify(result.graph)
    assert result.changed
    torch.testing.assert_close(result.graph(x), model(x), rtol=1e-5, atol=1e-6)

"""Transformer blocks: every operator in integers, masks harmless, answers close to float."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from planish import capture
from planish.ir import Graph, verify
from planish.ir.coverage import int8_coverage
from planish.ir.ops import arguments
from planish.passes import Context, InsertQDQ, LowerToInteger

Tensor = torch.Tensor


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Self-attention [n, tokens, width], with a mask that is added to the scores."""
        n, tokens, width = x.shape
        split = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        scores = torch.matmul(q, k.transpose(-2, -1)) * (width // self.heads) ** -0.5
        if mask is not None:
            scores = scores + mask
        mixed = torch.matmul(scores.softmax(-1), v).transpose(1, 2)
        return self.out(mixed.reshape(n, tokens, width))


class VisionBlock(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 17, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention = Attention(width, 4)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gain = nn.Parameter(torch.rand(width))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """A block of a vision transformer with layer scale: [n, 3, 16, 16] to [n, 10]."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = x + self.attention(self.norms[0](x))
        x = x + self.gain * self.down(F.gelu(self.up(self.norms[1](x))))
        return self.head(self.norms[2](x)[:, 0])


class TextBlock(nn.Module):
    def __init__(self, masked: float, width: int = 32) -> None:
        super().__init__()
        self.masked = masked
        self.words, self.positions = nn.Embedding(50, width), nn.Embedding(20, width)
        self.register_buffer("ids", torch.arange(20)[None])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention = Attention(width, 4)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.pool, self.head = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """A block of BERT; mask is 1 where there is a token: [n, 12] and [n, 12] to [n, 3]."""
        assert isinstance(self.ids, Tensor)
        x = self.words(tokens) + self.positions(self.ids[:, : tokens.shape[1]])
        x = self.norms[0](x)
        scores_mask = (1.0 - mask[:, None, None, :]) * self.masked
        x = self.norms[1](x + self.attention(x, scores_mask))
        x = self.norms[2](x + self.down(F.gelu(self.up(x))))
        return self.head(torch.tanh(self.pool(x[:, 0])))


class CausalBlock(nn.Module):
    def __init__(self, masked: float) -> None:
        super().__init__()
        self.attention, self.second = Attention(32, 4), Attention(32, 2)
        self.register_buffer("mask", torch.full((12, 12), masked).triu(1))
        self.bias = nn.Parameter(torch.randn(4, 12, 12))

    def forward(self, x: Tensor) -> Tensor:
        """Two attentions under one stored mask, the first with a bias too: [n, 12, 32]."""
        assert isinstance(self.mask, Tensor)
        return self.second(x + self.attention(x, self.bias + self.mask), self.mask)


def lower(model: nn.Module, *inputs: Tensor) -> tuple[Graph, Graph]:
    """Return the simulated and the integer graph; nothing may stay in float."""
    graph = capture(model.eval(), inputs)
    quantized = InsertQDQ().run(graph, Context(data=[inputs])).graph
    verify(quantized)
    result = LowerToInteger().run(quantized.copy(), Context())
    verify(result.graph)
    coverage = int8_coverage(result.graph)
    assert result.refused == ()
    assert coverage.fallbacks == ()
    assert coverage.share == 1.0
    return quantized, result.graph


def decibels(signal: Tensor, other: Tensor) -> float:
    """Return the signal-to-quantization-noise ratio of `other`."""
    return float(10 * torch.log10((signal**2).mean() / ((signal - other) ** 2).mean()))


def check(model: nn.Module, *inputs: Tensor, least: float = 20.0) -> Graph:
    quantized, integer = lower(model, *inputs)
    with torch.no_grad():
        exact, simulated, got = model(*inputs), quantized(*inputs), integer(*inputs)
    assert decibels(exact, got) > least
    assert decibels(simulated, got) > least + 5
    return quantized


def test_a_vision_transformer_block() -> None:
    torch.manual_seed(0)
    quantized = check(VisionBlock(), torch.rand(8, 3, 16, 16))
    integer = LowerToInteger().run(quantized, Context()).graph
    tables = [n for n in integer.calls if n.target is torch.ops.planish.table_i8.default]
    assert len(tables) == 1  # gelu; the scores' factor is in their scale


@pytest.mark.parametrize("masked", [-1e4, -3.4028e38])
def test_a_bert_block_under_a_mask(masked: float) -> None:
    torch.manual_seed(0)
    mask = torch.ones(8, 12)
    mask[::2, 8:] = 0
    check(TextBlock(masked), torch.randint(0, 50, (8, 12)), mask)


@pytest.mark.parametrize("masked", [-100.0, -1e9])
def test_a_stored_mask_of_several_layers(masked: float) -> None:
    torch.manual_seed(0)
    quantized = check(CausalBlock(masked), torch.randn(4, 12, 32))
    for node in quantized.calls:
        if node.target is torch.ops.planish.fake_quantize.default:
            scale = quantized.attribute(str(arguments(node)["scale"].target))
            assert float(scale.max()) < 0.2


def test_a_learned_bias_is_no_mask() -> None:
    torch.manual_seed(0)

    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention(32, 4)
            self.bias = nn.Parameter(torch.randn(4, 12, 12) * 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, self.bias)

    model = Biased()
    quantized = check(model, torch.randn(4, 12, 32), least=15.0)
    scale = quantized.attribute("quantization.bias.scale")
    bias = model.bias.detach()
    assert float(scale) == pytest.approx(float(bias.max() - bias.min()) / 255, rel=1e-3)

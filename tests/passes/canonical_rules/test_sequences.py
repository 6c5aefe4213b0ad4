"""Recurrence, attention and products of matrices, spelled out."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from planish import capture
from planish.ir import Graph
from planish.passes import Canonicalize, Context

RECURRENT: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: nn.LSTM(5, 6, batch_first=True),
    "lstm both ways, two layers": lambda: nn.LSTM(
        5, 6, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1
    ),
    "lstm with projection": lambda: nn.LSTM(5, 6, batch_first=True, proj_size=3),
    "gru, two layers": lambda: nn.GRU(5, 6, num_layers=2, batch_first=True),
    "gru both ways without bias": lambda: nn.GRU(
        5, 6, batch_first=True, bidirectional=True, bias=False
    ),
    "rnn": lambda: nn.RNN(5, 6, batch_first=True),
    "rnn with relu": lambda: nn.RNN(5, 6, batch_first=True, nonlinearity="relu"),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrence_is_unrolled(name: str, canonical: Callable[..., Graph]) -> None:
    torch.manual_seed(0)
    canonical(RECURRENT[name](), torch.randn(2, 3, 5))


def test_the_input_is_multiplied_once(
    canonical: Callable[..., Graph], golden: Callable[[str, str], None]
) -> None:
    torch.manual_seed(0)
    graph = canonical(nn.LSTM(5, 6, batch_first=True), torch.randn(2, 2, 5))
    golden("canonicalize_lstm", graph.text())


def test_steps_on_axis_0_are_fixed(canonical: Callable[..., Graph]) -> None:
    torch.manual_seed(0)
    graph = canonical(nn.GRU(5, 6), torch.randn(3, 2, 5), fixed=True)
    assert graph.inputs[0].shape == (3, 2, 5)


class Decoder(nn.Module):
    """Cells and a layer that continue given states."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.LSTMCell(5, 6), nn.GRUCell(6, 6)
        self.third = nn.LSTM(6, 6, batch_first=True)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """x: [n, 5]; state: [n, 6]."""
        hidden, cell = self.first(x, (state, state * 0.5))
        again, _ = self.first(x)
        moved = self.second(hidden, cell)
        steps, _ = self.third(moved[:, None], (state[None], cell[None]))
        return steps, again


def test_given_states(canonical: Callable[..., Graph]) -> None:
    canonical(Decoder(), torch.randn(2, 5), torch.randn(2, 6))


@pytest.mark.sweep
def test_a_hundred_steps_take_seconds() -> None:
    import time

    model = nn.LSTM(8, 8, num_layers=2, batch_first=True, bidirectional=True)
    raw = capture(model, torch.randn(1, 100, 8), canonicalize=False)
    began = time.perf_counter()
    graph = Canonicalize().run(raw, Context()).graph
    assert len(graph.calls) > 5000
    assert time.perf_counter() - began < 60.0


class Heads(nn.Module):
    """scaled_dot_product_attention with some options."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q, k, v: [n, heads, length, width]."""
        return F.scaled_dot_product_attention(q, k, v, **self.options)


ATTENTION: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal, scaled": {"is_causal": True, "scale": 0.3},
    "mask of booleans": {"attn_mask": torch.ones(4, 4, dtype=torch.bool).tril()},
    "mask of numbers": {"attn_mask": torch.linspace(-1, 1, 16).view(4, 4)},
    "grouped heads": {"enable_gqa": True},
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str, canonical: Callable[..., Graph]) -> None:
    keys = 2 if name == "grouped heads" else 4
    inputs = (torch.randn(2, 4, 4, 8), torch.randn(2, keys, 4, 8), torch.randn(2, keys, 4, 8))
    canonical(Heads(**ATTENTION[name]), *inputs)


def test_attention_text(
    canonical: Callable[..., Graph], golden: Callable[[str, str], None]
) -> None:
    graph = canonical(Heads(is_causal=True), *[torch.randn(2, 2, 4, 8)] * 3)
    golden("canonicalize_attention", graph.text())


class Encoder(nn.Module):
    """torch's own encoder, with what it takes."""

    def __init__(self, layer: dict[str, Any], call: dict[str, Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        block = nn.TransformerEncoderLayer(8, 2, 16, **layer)
        self.encoder = nn.TransformerEncoder(block, 1, enable_nested_tensor=False)
        self.call = call

    def forward(self, x: torch.Tensor, padding: torch.Tensor | None = None) -> torch.Tensor:
        """x: [n, 4, 8]; padding: booleans [n, 4]."""
        return self.encoder(x, src_key_padding_mask=padding, **self.call)


def test_encoders(canonical: Callable[..., Graph]) -> None:
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    x = torch.randn(2, 4, 8)
    canonical(Encoder({"batch_first": True, "activation": "gelu"}, {}), x)
    canonical(
        Encoder({"batch_first": True, "norm_first": True}, {"mask": mask, "is_causal": True}), x
    )
    canonical(Encoder({}, {}), torch.randn(4, 2, 8))


def test_an_encoder_with_padding(canonical: Callable[..., Graph]) -> None:
    # torch's fast path gives zeros at the padded places; planish is what its formula says.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        padding = torch.tensor([[False, False, True, True], [False, False, False, True]])
        canonical(Encoder({"batch_first": True}, {}), torch.randn(2, 4, 8), padding)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_multihead_attention_and_decoder(canonical: Callable[..., Graph]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8)
    canonical(nn.MultiheadAttention(8, 2, batch_first=True), x, x * 2, x + 1)
    canonical(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), x, torch.randn(2, 3, 8))


class Products(nn.Module):
    """Every spelling of a product with a stored matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows, self.columns = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(4, 5))
        self.cube, self.bias = nn.Parameter(torch.randn(2, 4, 6)), nn.Parameter(torch.randn(5))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """x: [n, 3, 4]."""
        flat = x[:, 0]
        return (
            torch.addmm(self.bias, flat, self.columns),
            x @ self.rows.T,
            torch.einsum("bnd,ed->bne", x, self.rows),
            torch.einsum("bnd,hde->bhne", x, self.cube),
            torch.einsum("bnd,bnd->bn", x, x),
            torch.einsum("...d,d->...", x, self.rows[0]),
            torch.einsum("bij,bk->bijk", x, flat),
            torch.bmm(x, x.mT),
            torch.baddbmm(torch.ones(3, 3), x, x.mT, beta=0.5, alpha=2.0),
            x @ self.rows[0],
        )


def test_products(
    canonical: Callable[..., Graph], operators: Callable[[Graph], Counter[str]]
) -> None:
    graph = canonical(Products(), torch.randn(2, 3, 4))
    found = operators(graph)
    assert found["linear"] >= 3
    assert len(graph.parameters()) == 4
    assert {"einsum", "bmm", "addmm", "mm"}.isdisjoint(found)

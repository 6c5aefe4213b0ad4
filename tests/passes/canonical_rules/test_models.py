"""Whole models: members of torchvision's families, encoders of text by hand and of transformers."""

import importlib
import importlib.util
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from planish.ir import Graph

ROOT = Path(__file__).parents[3]
# One of each kind; `make families` takes them all.
FAMILIES = ("shufflenet-v2", "mobilenet-v3", "maxvit", "lraspp")
VISION = runpy.run_path(str(ROOT / "benchmarks" / "vision.py"))


@pytest.mark.parametrize("name", FAMILIES)
def test_torchvision(name: str, canonical: Callable[..., Graph]) -> None:
    if not VISION["installed"]():
        pytest.skip("torchvision is not installed")
    model, images = VISION["build"](name)
    canonical(model, images)


class Text(nn.Module):
    """A BERT by hand: embeddings, masked attention with batch-first views, gelu by erf."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(20, 16), nn.Embedding(8, 16)
        self.norm = nn.LayerNorm(16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.out, self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, words: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """words: integers [n, length]; mask: 1 where a word counts, [n, length]."""
        places = torch.arange(words.shape[1], device=words.device).unsqueeze(0)
        x = self.norm(self.words(words) + self.places(places).expand(words.shape[0], -1, -1))
        n, length, width = x.shape
        q, k, v = (
            layer(x).view(n, length, 2, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-1, -2) / (width // 2) ** 0.5
        if mask is not None:
            hidden = (1.0 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
            scores = scores + hidden
        mixed = (torch.softmax(scores, -1) @ v).transpose(1, 2).contiguous().view(n, length, -1)
        x = x + self.out(mixed)
        y = self.up(x)
        return x + self.down(y * 0.5 * (1.0 + torch.erf(y / 2**0.5)))


def test_text_by_hand(canonical: Callable[..., Graph], golden: Callable[[str, str], None]) -> None:
    words = torch.randint(0, 20, (2, 6))
    golden("canonicalize_text", canonical(Text(), words).text())
    canonical(Text(), words, torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]))


class Bert(nn.Module):
    """A small BERT of the transformers package."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        VISION["torchvision_models"]()  # transformers imports torchvision where it is installed
        transformers: Any = importlib.import_module("transformers")

        config = transformers.BertConfig(
            vocab_size=20,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=8,
        )
        config._attn_implementation = attention
        torch.manual_seed(0)
        self.model = transformers.BertModel(config)

    def forward(self, words: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        """Return the last hidden state [n, length, 16]."""
        return self.model(input_ids=words, attention_mask=mask).last_hidden_state


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_text_of_transformers(attention: str, canonical: Callable[..., Graph]) -> None:
    if not VISION["installed"]() or importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed, or no torchvision for it")
    words = torch.randint(0, 20, (2, 6))
    canonical(Bert(attention), words)
    canonical(Bert(attention), words, torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]))

"""Networks with random weights as integer graphs, for tests on GPUs and in the emulator."""

import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

import planish
from planish import passes
from planish.examples.fashion_mnist.model import teacher
from planish.ir import Graph

ROOT = Path(__file__).parents[3]
VISION = runpy.run_path(str(ROOT / "benchmarks" / "vision.py"))


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, norm_first=True)


def vision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        if not VISION["installed"]():
            pytest.skip("torchvision is not installed")
        return getattr(VISION["torchvision_models"](), name)(num_classes=10)

    return make


# Name to the shape of one sample and the network.
NETWORKS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "ResNet-20": ((1, 28, 28), teacher),
    "transformer": ((20, 64), encoder),
    "ResNet-18": ((3, 64, 64), vision("resnet18")),
    "MobileNetV2": ((3, 96, 96), vision("mobilenet_v2")),
}


@cache
def integer_graph(name: str, batch: int = 1) -> Graph:
    """Return a network with random weights as integers; its batch norms have seen some samples."""
    shape, make = NETWORKS[name]
    torch.manual_seed(0)
    module, samples = make().train(), torch.rand(8, *shape)
    with torch.no_grad():
        for _ in range(3):
            module(samples)
    graph = planish.capture(module.eval(), samples[:2])
    steps = planish.Pipeline([passes.FoldBatchNorm(), passes.InsertQDQ()])
    quantized = steps.run(graph, [samples]).graph
    lowered = passes.LowerToInteger().run(quantized, passes.Context()).graph
    return lowered.fix_batch(batch)

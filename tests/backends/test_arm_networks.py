"""Whole networks give the same integers on the reference, on x86 and on each ARM target."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import planish
from benchmarks.vision import torchvision_models
from planish import passes
from planish.backends import Reference, build
from planish.compilation import backend_graph
from planish.examples.fashion_mnist.model import teacher
from planish.ir import Graph
from tests.backends.test_arm import PROCESSORS

pytestmark = pytest.mark.arm
Processors = Callable[[str], Any]
INPUTS = 20


def vision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        try:
            return getattr(torchvision_models(), name)()
        except ImportError:
            pytest.skip("torchvision is not installed")

    return make


def efficientnet() -> nn.Module:
    pytest.importorskip("efficientnet_lite_pytorch")
    from benchmarks.real_models import efficientnet_lite0

    return efficientnet_lite0()


def transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, activation="gelu")


# Name to the module and the shape of one sample.
SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "demo": (teacher, (1, 28, 28)),
    "transformer block": (transformer, (16, 64)),
}
LARGE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18": (vision("resnet18"), (3, 64, 64)),
    "MobileNetV2": (vision("mobilenet_v2"), (3, 96, 96)),
    "EfficientNet-Lite0": (efficientnet, (3, 96, 96)),
}


@cache
def integer_graph(name: str) -> tuple[Graph, list[list[Any]]]:
    """A network in integers, for one sample, and the samples."""
    make, shape = {**SMALL, **LARGE}[name]
    torch.manual_seed(0)
    module = make().eval()
    random = torch.Generator().manual_seed(1)
    images = torch.rand(INPUTS, *shape, generator=random)
    graph = planish.capture(module, images[:2])
    steps = planish.Pipeline([passes.FoldBatchNorm(), passes.InsertQDQ()])
    quantized = steps.run(graph, [images[:8]]).graph
    return backend_graph(quantized), [[image[None].numpy()] for image in images]


@cache
def expected(name: str) -> list[Any]:
    """What x86 computes, which is what the reference computes."""
    graph, samples = integer_graph(name)
    artifact, reference = build(graph, "x86-64-v3"), Reference(graph)
    assert artifact.coverage["int8_mac_coverage"] == 1
    found = [artifact(*sample) for sample in samples]
    for sample, result in zip(samples, found, strict=True):
        assert np.array_equal(reference(*sample), result)
    return found


def assert_same_bits(name: str, target: str, emulated: Processors) -> None:
    graph, samples = integer_graph(name)
    results = emulated(PROCESSORS[target]).run(build(graph, target), samples)
    assert len(results) >= 20
    for want, have in zip(expected(name), results, strict=True):
        assert np.array_equal(want, have)


@pytest.mark.parametrize("target", PROCESSORS)
@pytest.mark.parametrize("name", SMALL)
def test_small_networks(emulated: Processors, name: str, target: str) -> None:
    assert_same_bits(name, target, emulated)


@pytest.mark.sweep
@pytest.mark.parametrize("target", PROCESSORS)
@pytest.mark.parametrize("name", LARGE)
def test_large_networks(emulated: Processors, name: str, target: str) -> None:
    assert_same_bits(name, target, emulated)

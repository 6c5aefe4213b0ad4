"""The networks that are measured, and how they become quantized ONNX files.

Weights don't change how long an integer kernel takes, so most are random; batch norms see a few
batches first, so that every layer's values spread as in a trained network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import planish
from planish import passes
from planish.backends.target import Target
from planish.examples.fashion_mnist.model import teacher
from planish.ir import ModelError
from planish.onnx_export import export_onnx

from .real_models import efficientnet_lite0
from .vision import torchvision_models

_BATCH = 8  # samples
_SETTLING = 4  # batches that batch norms see


@dataclass(frozen=True)
class Network:
    """A network to measure.

    Attributes:
        name: As it is printed.
        shape: Of one sample: [channels, height, width] or [features].
        make: Returns the module, in evaluation mode; ModelError says what is missing.
        settle: Whether its batch norms have no statistics yet.
        keep: The share of its multiply-accumulates that pruning leaves.
        goal: What its time is to be at most, over that of the faster other runtime; of a pruned
            network, over its own unpruned.
    """

    name: str
    shape: tuple[int, ...]
    make: Callable[[], nn.Module]
    settle: bool = False
    keep: float | None = None
    goal: float | None = None

    def file(self, multiple: int) -> str:
        """Return the name of its ONNX file; of a pruned one, with channels in a multiple."""
        name = "".join(c if c.isalnum() else "-" for c in self.name.lower()).strip("-")
        return f"{name}.onnx" if self.keep is None else f"{name}-{multiple}.onnx"

    def samples(self, count: int, seed: int) -> Tensor:
        """Return `count` random samples, float32 [count, *shape] in 0..1."""
        return torch.rand(count, *self.shape, generator=torch.Generator().manual_seed(seed))


def prepare(network: Network, folder: Path, target: Target) -> Path:
    """Return the network's quantized ONNX file, made if it isn't there.

    Args:
        network: Which one.
        folder: Where files lie.
        target: What it is measured for: pruning leaves channels in multiples that it likes.

    Raises:
        ModelError: What it is made of isn't installed.
    """
    path = folder / network.file(target.channel_multiple)
    if path.exists():
        return path
    torch.manual_seed(0)
    module = network.make()
    if network.settle:
        _settle(module, network)
    graph = planish.capture(module.eval(), network.samples(2, seed=0))
    prune = [] if network.keep is None else [passes.PruneChannels(macs=network.keep)]
    steps = planish.Pipeline([*prune, passes.FoldBatchNorm(), passes.InsertQDQ()])
    quantized = steps.run(graph, [network.samples(_BATCH, seed=1)], target=target).graph
    return export_onnx(quantized, path)


def _settle(module: nn.Module, network: Network) -> None:
    """Let batch norms measure their inputs."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.5
    with torch.no_grad():
        for seed in range(2, 2 + _SETTLING):
            module(network.samples(_BATCH, seed))


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        try:
            models: Any = torchvision_models()
        except ImportError as error:
            raise ModelError("torchvision is not installed", where=name) from error
        return getattr(models, name)().eval()

    return make


def _convolution(channels: int, out: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    kernel = 3 if groups > 1 or channels == 3 else 1
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(),
    )


def separable() -> nn.Module:
    """MobileNet v1 (Howard et al. 2017, table 1), a quarter of its width, for 128x128 images."""
    plan = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)]
    layers: list[nn.Module] = [_convolution(3, 8, stride=2)]
    channels = 8
    for out, stride in plan:
        layers.append(_convolution(channels, channels, stride=stride, groups=channels))
        layers.append(_convolution(channels, out))
        channels = out
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, 100)]
    return _seeded(nn.Sequential(*layers, *head))


def perceptron() -> nn.Module:
    """Three linear layers."""
    hidden = [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
    return _seeded(nn.Sequential(*hidden, nn.Linear(512, 10)))


def _seeded(module: nn.Module) -> nn.Module:
    """Give every parameter a value that depends on its shape and place alone."""
    random = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_uniform_(parameter, generator=random)
    return module.eval()


_IMAGE = (3, 224, 224)
_RESNET_18 = _torchvision("resnet18")

SMALL = (
    Network("ResNet-20 (example)", (1, 28, 28), teacher),
    Network("MobileNet v1 x 0.25", (3, 128, 128), separable),
    Network("perceptron", (784,), perceptron),
)
# What is measured together stands together: a pruned network behind the one that it is made from.
GROUPS: tuple[tuple[Network, ...], ...] = (
    (
        Network("ResNet-18", _IMAGE, _RESNET_18, settle=True, goal=0.8),
        Network("ResNet-18 pruned", _IMAGE, _RESNET_18, settle=True, keep=0.5, goal=0.58),
    ),
    (Network("ResNet-50", _IMAGE, _torchvision("resnet50"), settle=True, goal=1.0),),
    (Network("MobileNetV2", _IMAGE, _torchvision("mobilenet_v2"), settle=True, goal=1.0),),
    (Network("EfficientNet-Lite0", _IMAGE, efficientnet_lite0, goal=1.0),),
    *((network,) for network in SMALL),
)

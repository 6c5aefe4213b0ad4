"""The networks that are measured: one for each kind of kernel.

Weights don't change how long an integer kernel takes, so all but the trained one are random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from planish.examples.fashion_mnist.model import teacher


@dataclass(frozen=True)
class Network:
    """A network to measure.

    Attributes:
        name: As it is printed.
        shape: Of one sample: [channels, height, width] or [features].
        make: Returns the module, in evaluation mode.
    """

    name: str
    shape: tuple[int, ...]
    make: Callable[[], nn.Module]

    def samples(self, count: int, seed: int) -> Tensor:
        """Return `count` random samples, float32 [count, *shape] in 0..1."""
        return torch.rand(count, *self.shape, generator=torch.Generator().manual_seed(seed))


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


NETWORKS = (
    Network("ResNet-20 (example)", (1, 28, 28), teacher),
    Network("MobileNet v1 x 0.25", (3, 128, 128), separable),
    Network("perceptron", (784,), perceptron),
)

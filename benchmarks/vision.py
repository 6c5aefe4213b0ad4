"""One small member of every torchvision family, at the smallest input that it takes.

torchvision is no dependency of planish: `installed()` says whether its models can be made here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Family:
    """How a model is made.

    Attributes:
        name: Of the family.
        member: The model's name in torchvision.
        make: Makes it with random weights, from `torchvision.models`.
        size: Height and width of its input images.
    """

    name: str
    member: str
    make: Callable[[Any], nn.Module]
    size: int


def installed() -> bool:
    """Whether torchvision is there."""
    return importlib.util.find_spec("torchvision") is not None


@cache
def _declared() -> torch.library.Library:
    """Declare two operators that torchvision's Python looks for when it is imported.

    Its wheel is built for a torch with CUDA; without that its own library doesn't load. Models of
    classification and segmentation never call them.
    """
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    library.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    return library


def torchvision_models() -> Any:
    """Return the module `torchvision.models`; ImportError without torchvision."""
    if not hasattr(torch.ops.torchvision, "nms"):
        _declared()
    import torchvision.models

    return torchvision.models


def _classes(name: str, **options: Any) -> Callable[[Any], nn.Module]:
    return lambda models: getattr(models, name)(num_classes=10, **options)


def _pixels(name: str) -> Callable[[Any], nn.Module]:
    return lambda models: getattr(models.segmentation, name)(
        weights=None, weights_backbone=None, num_classes=10
    )


def _maxvit(models: Any) -> nn.Module:
    """Two blocks; the published ones take nothing below 224 pixels."""
    return models.maxvit.MaxVit(
        input_size=(64, 64),
        stem_channels=32,
        block_channels=[32, 64],
        block_layers=[1, 1],
        head_dim=16,
        stochastic_depth_prob=0.2,
        partition_size=4,
        num_classes=10,
    )


_NO_HEADS = {"init_weights": False, "aux_logits": False}

FAMILIES = (
    Family("resnet", "resnet18", _classes("resnet18"), 32),
    Family("resnext", "resnext50_32x4d", _classes("resnext50_32x4d"), 32),
    Family("wide-resnet", "wide_resnet50_2", _classes("wide_resnet50_2"), 32),
    Family("vgg", "vgg11_bn", _classes("vgg11_bn"), 32),
    Family("alexnet", "alexnet", _classes("alexnet"), 64),
    Family("squeezenet", "squeezenet1_1", _classes("squeezenet1_1"), 32),
    Family("densenet", "densenet121", _classes("densenet121"), 32),
    Family("googlenet", "googlenet", _classes("googlenet", **_NO_HEADS), 32),
    Family("inception", "inception_v3", _classes("inception_v3", **_NO_HEADS), 75),
    Family("mobilenet-v2", "mobilenet_v2", _classes("mobilenet_v2"), 32),
    Family("mobilenet-v3", "mobilenet_v3_small", _classes("mobilenet_v3_small"), 32),
    Family("mnasnet", "mnasnet0_5", _classes("mnasnet0_5"), 32),
    Family("shufflenet-v2", "shufflenet_v2_x0_5", _classes("shufflenet_v2_x0_5"), 32),
    Family("efficientnet", "efficientnet_b0", _classes("efficientnet_b0"), 32),
    Family("efficientnet-v2", "efficientnet_v2_s", _classes("efficientnet_v2_s"), 32),
    Family("regnet-x", "regnet_x_400mf", _classes("regnet_x_400mf"), 32),
    Family("regnet-y", "regnet_y_400mf", _classes("regnet_y_400mf"), 32),
    Family("convnext", "convnext_tiny", _classes("convnext_tiny"), 32),
    Family("vit", "vit_b_16", _classes("vit_b_16", image_size=32), 32),
    Family("swin", "swin_t", _classes("swin_t"), 32),
    Family("swin-v2", "swin_v2_t", _classes("swin_v2_t"), 64),
    Family("maxvit", "MaxVit of 2 blocks", _maxvit, 64),
    Family("fcn", "fcn_resnet50", _pixels("fcn_resnet50"), 32),
    Family("deeplab", "deeplabv3_mobilenet_v3_large", _pixels("deeplabv3_mobilenet_v3_large"), 32),
    Family("lraspp", "lraspp_mobilenet_v3_large", _pixels("lraspp_mobilenet_v3_large"), 32),
)


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a family's model in evaluation mode and two random images [2, 3, size, size].

    Parameters that torchvision sets to zero are drawn, so that no branch of the model is idle.
    """
    family = next(family for family in FAMILIES if family.name == name)
    torch.manual_seed(0)
    model = family.make(torchvision_models()).eval()
    for parameter in model.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)
    return model, torch.randn(2, 3, family.size, family.size)

"""The teacher: a ResNet-20 for images of 28x28, one channel, ten classes.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016), section
4.2, with n = 3: one convolution, three groups of three residual blocks with 16, 32 and 64 channels,
global average pooling, one linear layer. Two things differ from the paper: a max pooling after the
first convolution brings the images to 14x14 (a quarter of the work), and the shortcuts that change
the shape are 1x1 convolutions (the paper's option B) in place of zero padding.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from planish.ir import ModelError

WEIGHTS = Path(__file__).with_name("teacher.safetensors")


class Block(nn.Module):
    """Two 3x3 convolutions and the shortcut around them.

    Args:
        channels_in: Channels of the input, [n, channels_in, h, w].
        channels_out: Channels of the output, [n, channels_out, h / stride, w / stride].
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            projection = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    """272,186 parameters; float32 [n, 1, 28, 28] in 0..1 to logits [n, classes]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layers = nn.Sequential(
            Block(16, 16),
            Block(16, 16),
            Block(16, 16),
            Block(16, 32, stride=2),
            Block(32, 32),
            Block(32, 32),
            Block(32, 64, stride=2),
            Block(64, 64),
            Block(64, 64),
        )
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn(self.stem(x))))
        x = F.adaptive_avg_pool2d(self.layers(x), 1)
        return self.fc(x.flatten(1))


def teacher(weights: Path = WEIGHTS) -> ResNet20:
    """Return the trained network in evaluation mode.

    Args:
        weights: A safetensors file that `train_teacher` wrote; by default the one beside this.

    Raises:
        ModelError: The file is missing, damaged, or holds another network's weights.
    """
    model = ResNet20()
    try:
        model.load_state_dict(load_file(weights))
    except FileNotFoundError as error:
        raise ModelError(
            "the teacher's weights are missing",
            where=str(weights),
            cure="train them with python -m planish.examples.fashion_mnist.train_teacher",
        ) from error
    except (SafetensorError, RuntimeError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"these are no weights of ResNet20 ({first})", where=str(weights)
        ) from error
    return model.eval()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch: int = 1000) -> float:
    """Return the share of images that the model classifies right, 0..1.

    Args:
        model: Takes float32 [n, 1, 28, 28] in 0..1; put into evaluation mode.
        images: uint8 [n, 1, 28, 28].
        labels: int64 [n].
        batch: Images at a time; bounds the memory, doesn't change the result.
    """
    model.eval()
    right = 0
    with torch.no_grad():
        for x, y in zip(images.split(batch), labels.split(batch), strict=True):
            right += int((model(x.float() / 255).argmax(1) == y).sum())
    return right / len(labels)

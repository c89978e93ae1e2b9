"""Residual networks for small images: a 3 x 3 stem without pooling, four stages of basic blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from puma_dash.core.architectures.base import image
from puma_dash.core.registry import Described


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around which the input is passed on."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        if stride == 1 and before == after:
            self.downsample = nn.Sequential()
        else:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(b, after, h / stride, w / stride) from (b, before, h, w)."""
        inside = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(inside + self.downsample(x))


class SmallResNet(nn.Module):
    """Stem, four stages at 1, 1/2, 1/4 and 1/8 of the side, global average, one linear layer."""

    def __init__(self, shape: tuple[int, ...], outputs: int, blocks: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.front, (depth, _, _) = image(shape)
        self.conv1 = nn.Conv2d(depth, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 1, blocks[0])
        self.layer2 = _stage(width, 2 * width, 2, blocks[1])
        self.layer3 = _stage(2 * width, 4 * width, 2, blocks[2])
        self.layer4 = _stage(4 * width, 8 * width, 2, blocks[3])
        self.fc = nn.Linear(8 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (b, c) of images (b, channels, h, w) or (b, h, w)."""
        x = torch.relu(self.bn1(self.conv1(self.front(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(x.mean((2, 3)))


def _stage(before: int, after: int, stride: int, count: int) -> nn.Sequential:
    """``count`` blocks, of which the first changes size and channels."""
    blocks = [BasicBlock(before, after, stride), *(BasicBlock(after, after, 1) for _ in range(count - 1))]
    return nn.Sequential(*blocks)


@dataclass(frozen=True)
class ResNet18(Described):
    """Two basic blocks in each of four stages, for images of about 16 to 96 pixels."""

    label = "ResNet-18 for small images"
    reference = "He, Zhang, Ren & Sun (2016), Deep residual learning for image recognition"
    blocks: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)

    width: int = field(
        default=64,
        metadata={
            "help": "Channels of the first stage; each later one has twice as many.",
            "min": 1,
            "max": 1024,
        },
    )

    def __call__(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """The network for images (channels, height, width) or (height, width).

        Its keys are those in common use: conv1.weight, layer1.0.bn1.running_mean, ..., fc.bias.
        """
        return SmallResNet(shape, outputs, self.blocks, self.width)


@dataclass(frozen=True)
class ResNet34(ResNet18):
    """Three, four, six and three basic blocks in four stages, for images of about 16 to 96 pixels."""

    label = "ResNet-34 for small images"
    blocks: ClassVar[tuple[int, ...]] = (3, 4, 6, 3)

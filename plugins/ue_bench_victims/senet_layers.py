"""The torch modules of SENet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import stem


class SqueezeExcite(nn.Module):
    """Multiplies each channel by a number in (0, 1) that depends on the means of all of them."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.excite = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # A mean and no pooling module: pooling marks the end of the convolutional part of a victim.
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(means))))


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and ReLU, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            SqueezeExcite(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.first(x)
        # What is projected has been activated; what is passed on has not.
        out: Tensor = self.body(active) + (x if self.shortcut is None else self.shortcut(active))
        return out


def senet18(num_classes: int, small_stem: bool, width: int = 64) -> nn.Sequential:
    """Build stem, four stages of two blocks, ``width`` channels in the first, global pooling and a linear layer."""
    blocks: list[nn.Module] = []
    inputs = width
    for outputs, stride in [(width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)]:
        blocks += [PreActivationBlock(inputs, outputs, stride), PreActivationBlock(outputs, outputs, 1)]
        inputs = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes)]
    return nn.Sequential(stem(small_stem, width), *blocks, *head)

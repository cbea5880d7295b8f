"""The torch modules behind the residual victims, and what others share of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """Build a convolution without bias, batch normalisation and, unless told otherwise, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected by a 1x1 convolution when the shape changes."""

    expansion: ClassVar[int] = 1

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(inputs, outputs, 3, stride), conv_bn(outputs, outputs, relu=False))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last to four times the width, and a shortcut."""

    expansion: ClassVar[int] = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.body = nn.Sequential(
            conv_bn(inputs, width, 1), conv_bn(width, width, 3, stride), conv_bn(width, outputs, 1, relu=False)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


def stem(small: bool, width: int = 64) -> nn.Sequential:
    """Build the first layers: at full resolution for small images, at a quarter of it for large ones."""
    if small:
        return conv_bn(3, width)
    return nn.Sequential(
        nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
    )


RESNETS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


def resnet(depth: int, num_classes: int, small_stem: bool, width: int = 64) -> nn.Sequential:
    """Build stem, four stages of blocks, global average pooling and a linear layer. He et al. (2016), table 1.

    ``width`` is that of the first stage; each of the others has twice the channels of the one before.
    """
    block, counts = RESNETS[depth]
    parts: list[tuple[str, nn.Module]] = [("stem", stem(small_stem, width))]
    inputs = width
    for number, count in enumerate(counts, start=1):
        channels = width * 2 ** (number - 1)
        blocks = []
        for index in range(count):
            blocks.append(block(inputs, channels, 2 if index == 0 and number > 1 else 1))
            inputs = block.expansion * channels
        parts.append((f"stage{number}", nn.Sequential(*blocks)))
    head = [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("linear", nn.Linear(inputs, num_classes))]
    return nn.Sequential(OrderedDict([*parts, *head]))


class Residual(nn.Module):
    """``x + f(x)`` with two convolutions in f."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(width, width), conv_bn(width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def _halving(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def resnet9(num_classes: int, width: int, blocks: int = 2) -> nn.Sequential:
    """Build a half-resolution stem, then twice a halving convolution and a residual block, once for ``blocks=1``."""
    return nn.Sequential(
        conv_bn(3, width, kernel=4, stride=2),
        _halving(width, 2 * width),
        Residual(2 * width),
        _halving(2 * width, 4 * width),
        *([Residual(4 * width)] if blocks == 2 else []),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )

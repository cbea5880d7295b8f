"""The torch modules behind the victims."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """A convolution without bias, batch normalisation and, unless told otherwise, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected by a 1x1 convolution when the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(inputs, outputs, 3, stride), conv_bn(outputs, outputs, relu=False))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


def resnet18(num_classes: int, small_stem: bool) -> nn.Sequential:
    """Stem, four stages of two blocks, global average pooling, linear."""
    if small_stem:
        stem: nn.Module = conv_bn(3, 64)
    else:
        stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
    stages: list[tuple[str, nn.Module]] = []
    inputs = 64
    for number, (outputs, stride) in enumerate([(64, 1), (128, 2), (256, 2), (512, 2)], start=1):
        blocks = [BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)]
        stages.append((f"stage{number}", nn.Sequential(*blocks)))
        inputs = outputs
    head = [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("linear", nn.Linear(512, num_classes))]
    return nn.Sequential(OrderedDict([("stem", stem), *stages, *head]))


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
    """Half-resolution stem, then twice a halving convolution and a residual block; ``blocks=1`` omits the last one."""
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

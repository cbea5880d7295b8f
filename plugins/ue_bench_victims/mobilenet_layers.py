"""The torch modules of MobileNetV2 for small images."""

from __future__ import annotations

from torch import Tensor, nn

from .layers import conv_bn

# Expansion, channels, blocks and first stride of a stage: table 2 of the paper, but for the stride of the second.
STAGES = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def depthwise_bn(channels: int, stride: int) -> nn.Sequential:
    """Build a 3x3 convolution of each channel on its own, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow without ReLU; a shortcut wherever the resolution stays."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = expansion * inputs
        self.body = nn.Sequential(
            conv_bn(inputs, wide, 1), depthwise_bn(wide, stride), conv_bn(wide, outputs, 1, relu=False)
        )
        self.shortcut: nn.Module | None = None
        if stride == 1:
            self.shortcut = nn.Identity() if inputs == outputs else conv_bn(inputs, outputs, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out if self.shortcut is None else out + self.shortcut(x)


def scaled(channels: int, multiplier: float) -> int:
    """Multiply and round to a multiple of 8, 8 at least and never down by more than a tenth, as torchvision does."""
    wanted = channels * multiplier
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def mobilenetv2(num_classes: int, multiplier: float = 1.0) -> nn.Sequential:
    """Build a stem of 32 channels, seven stages and 1,280 features, all but the last times ``multiplier``."""
    inputs = scaled(32, multiplier)
    features = scaled(1280, max(1.0, multiplier))
    layers: list[nn.Module] = [conv_bn(3, inputs)]
    for expansion, channels, count, first in STAGES:
        outputs = scaled(channels, multiplier)
        for index in range(count):
            layers.append(InvertedResidual(inputs, outputs, expansion, first if index == 0 else 1))
            inputs = outputs
    layers.append(conv_bn(inputs, features, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, num_classes))

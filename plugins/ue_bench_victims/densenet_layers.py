"""The torch modules of DenseNet for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def norm_relu_conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Build batch normalisation, ReLU and a convolution without bias, in the order of pre-activation."""
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
    )


class DenseLayer(nn.Module):
    """Appends ``growth`` channels to its input, through a bottleneck of four times as many."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(norm_relu_conv(inputs, 4 * growth, 1), norm_relu_conv(4 * growth, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet(num_classes: int, growth: int, counts: tuple[int, ...]) -> nn.Sequential:
    """Build dense blocks of so many layers; between them, half the channels at half the resolution."""
    channels = 2 * growth
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
    for number, count in enumerate(counts):
        if number > 0:
            layers += [norm_relu_conv(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
        layers.append(nn.Sequential(*(DenseLayer(channels + i * growth, growth) for i in range(count))))
        channels += count * growth
    layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))

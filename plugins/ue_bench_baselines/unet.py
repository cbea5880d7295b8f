"""The noise generator of DeepConfuse: a U-Net whose output has the size of its input."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Build two 3x3 convolutions, each with batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """N x 3 x H x W to as much in (-1, 1), for images of any size.

    Blocks of ``width``, 2, 4 and 8 times as many channels, each at half the resolution of the one before (average
    pooling), and back up (bilinear, corners aligned), where each also sees what was there on the way down. A 1x1
    convolution, batch normalisation and tanh make the noise. Odd sides are halved upwards; the last window averages
    what there is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(block(a, b) for a, b in zip([3, *channels], channels[:3], strict=False))
        self.bottom = block(channels[2], channels[3])
        self.up = nn.ModuleList(block(channels[k] + channels[k + 1], channels[k]) for k in (2, 1, 0))
        self.head = nn.Sequential(nn.Conv2d(width, 3, 1), nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        for down in self.down:
            x = down(x)
            seen.append(x)
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        x = self.bottom(x)
        for up in self.up:
            beside = seen.pop()
            x = F.interpolate(x, size=beside.shape[2:], mode="bilinear", align_corners=True)
            x = up(torch.cat([x, beside], 1))
        return cast(Tensor, self.head(x)).tanh()

"""The noise generator of UC: residual blocks between two convolutions down and two up."""

from __future__ import annotations

from torch import Tensor, nn

BLOCKS = 6


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    """Build a convolution that keeps the size, but for its stride, and batch normalisation; borders are mirrored."""
    edge = size // 2
    return [nn.ReflectionPad2d(edge), nn.Conv2d(inputs, outputs, size, stride), nn.BatchNorm2d(outputs)]


def upwards(inputs: int, outputs: int) -> list[nn.Module]:
    """Build a transposed convolution to twice the size, batch normalisation and ReLU."""
    up = nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=1, output_padding=1)
    return [up, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = convolution(channels, channels, 3), convolution(channels, channels, 3)
        self.body = nn.Sequential(*first, nn.ReLU(inplace=True), *second)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class Generator(nn.Sequential):
    """N x 3 x H x W to as much in (-1, 1); sides are multiples of 4. ``width`` channels in the first layer."""

    def __init__(self, width: int) -> None:
        super().__init__(
            *convolution(3, width, 7),
            nn.ReLU(inplace=True),
            *convolution(width, 2 * width, 3, 2),
            nn.ReLU(inplace=True),
            *convolution(2 * width, 4 * width, 3, 2),
            nn.ReLU(inplace=True),
            *(Residual(4 * width) for _ in range(BLOCKS)),
            *upwards(4 * width, 2 * width),
            *upwards(2 * width, width),
            *convolution(width, 3, 7)[:2],
            nn.Tanh(),
        )

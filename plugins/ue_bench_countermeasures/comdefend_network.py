"""The networks of ComDefend: one compresses an image to twelve maps of bits, one makes an image of them."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

CODE = 12  # maps of bits
DOWN, UP = (16, 32, 64, 128, 256, 128, 64, 32), (32, 64, 128, 256, 128, 64, 32, 16)


def convolutions(channels: list[int]) -> nn.Sequential:
    """Build 3x3 convolutions at full resolution with ELU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ELU(inplace=True)]
    return nn.Sequential(*layers[:-1])


class ComDefendNetwork(nn.Module):
    """Images N x 3 x H x W in [0, 1] to codes N x 12 x H x W, and codes to images.

    ``divisor`` is what the paper's numbers of channels are divided by, but for those of images and codes.
    """

    bits = CODE

    def __init__(self, divisor: int = 1) -> None:
        super().__init__()
        self.divisor = divisor
        self.compressor = convolutions([3, *(max(1, c // divisor) for c in DOWN), CODE])
        self.reconstructor = convolutions([CODE, *(max(1, c // divisor) for c in UP), 3])

    def compress(self, x: Tensor) -> Tensor:
        """Return codes before they become bits: positive for a one."""
        return cast(Tensor, self.compressor(x - 0.5))

    def reconstruct(self, code: Tensor) -> Tensor:
        return cast(Tensor, self.reconstructor(code)).sigmoid()

    def forward(self, x: Tensor, noise: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Return codes as in training, numbers in (0, 1) that ``noise`` drives to 0 and 1, and images made of them."""
        code = (self.compress(x) - noise).sigmoid()
        return code, self.reconstruct(code)

    def purify(self, x: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """Return images made of bits."""
        return self.reconstruct((self.compress(x) - noise > 0).to(x.dtype))


def loss(code: Tensor, image: Tensor, x: Tensor) -> Tensor:
    """Return the mean squared error of images, and a little for every one in the code."""
    return torch.nn.functional.mse_loss(image, x) + 1e-4 * code.square().mean()

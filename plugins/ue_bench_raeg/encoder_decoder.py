"""An encoder and a decoder in place of the invertible generator: the first row of RAEG's Table 4.

The paper names them and says no more. Ours: two U-Nets of one shape, one that changes images and one that is trained to
take the change back; nothing but the loss of recovery ties them together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .generator import LEVELS, Generator, TwoWay, at_zero

KIND = "enc-dec"


class UNet(nn.Module):
    """N x 3 x H x W to what is added to it: three halvings, ``width`` channels at first and twice as many at each.

    Two 3x3 convolutions with ELU a level, means of 2 x 2 on the way down, nearest neighbours on the way up, where a
    level sees what it gave on the way down. The last convolution starts at zero: nothing is added at first.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(LEVELS + 1)]
        self.down = nn.ModuleList(_pair(a, b) for a, b in zip([3, *channels[:-1]], channels, strict=True))
        self.up = nn.ModuleList(_pair(a + 2 * a, a) for a in reversed(channels[:-1]))
        self.last = at_zero(nn.Conv2d(width, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        given: list[Tensor] = []
        h = x
        for level, convolutions in enumerate(self.down):
            h = convolutions(F.avg_pool2d(h, 2) if level else h)
            given.append(h)
        given.pop()
        for convolutions in self.up:
            h = convolutions(torch.cat([F.interpolate(h, scale_factor=2), given.pop()], 1))
        changed: Tensor = x + self.last(h).to(x.dtype)
        return changed


def _pair(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.ELU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.ELU()
    )


class EncoderDecoder(TwoWay):
    """Two U-Nets: forward is the one's, ``inverse`` the other's, and no more exact than it was trained to be.

    At initialisation both are the identity. Sides of images are multiples of 8.
    """

    def __init__(self, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.settings = {"kind": KIND, "width": width}
        with torch.random.fork_rng(devices=[]):  # constructors of layers draw from the global generator
            torch.manual_seed(seed)
            self.encoder, self.decoder = UNet(width), UNet(width)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.encoder(x)
        return changed

    def inverse(self, x: Tensor) -> Tensor:
        restored: Tensor = self.decoder(x)
        return restored

    def plain_weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.state_dict().items()}


def create(settings: dict[str, Any], *, spectral: bool = True, seed: int = 0) -> TwoWay:
    """Build the network that ``settings`` describe. Raises one of Python's errors when they describe none."""
    if settings.get("kind") == KIND:
        return EncoderDecoder(**{name: value for name, value in settings.items() if name != "kind"}, seed=seed)
    return Generator(**settings, spectral=spectral, seed=seed)

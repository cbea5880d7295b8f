"""Images through a generator and back."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ue_bench.api import check_finite

from .generator import TwoWay, pad, padded

Pixels = NDArray[np.uint8]


def to_unit(images: Pixels, network: TwoWay) -> Tensor:
    """Convert N x H x W x 3 in 0..255 to N x 3 x H x W in [0, 1], in the dtype and on the device of ``network``."""
    like = next(network.parameters())
    x = torch.from_numpy(np.array(images)).to(like.device).permute(0, 3, 1, 2)  # a copy: stored images are read-only
    return x.to(like.dtype).div_(255).contiguous()


def to_pixels(x: Tensor) -> Pixels:
    """Convert back, clipped to [0, 1] and rounded. Raises Diverged when a number is not finite."""
    check_finite(x, "image of the generator")
    pixels: Pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


@torch.inference_mode()
def protect_padded(network: TwoWay, images: Pixels) -> Pixels:
    """Protect images whose sides are mirrored up to multiples of 8: what lies beyond the old ones helps recovery.

    The array may be written to.
    """
    return to_pixels(network(pad(to_unit(images, network))))


def protect(network: TwoWay, images: Pixels) -> Pixels:
    """Protect images, N x H x W x 3; the size stays."""
    height, width = images.shape[1:3]
    return protect_padded(network, images)[:, :height, :width]


@torch.inference_mode()
def recover_padded(network: TwoWay, images: Pixels) -> Pixels:
    """Recover protected ``images`` whose sides are multiples of 8, in double precision.

    Sums in another order differ by 1e-15 then, where rounding to 8 bits would have to meet a half to show it: batches
    and devices give the same pixels.
    """
    before = next(network.parameters()).dtype
    network.double()
    try:
        return to_pixels(network.inverse(to_unit(images, network)))
    finally:
        network.to(before)


def recover(network: TwoWay, images: Pixels) -> Pixels:
    """Recover protected ``images``, N x H x W x 3; sides are mirrored where need be, at a loss near the edge."""
    height, width = images.shape[1:3]
    edge = ((0, 0), (0, padded(height) - height), (0, padded(width) - width), (0, 0))
    return recover_padded(network, np.pad(images, edge, mode="reflect"))[:, :height, :width]

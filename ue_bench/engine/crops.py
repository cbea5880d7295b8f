"""Crop and mirror batches of uint8 images at random, on the device they lie on, and bring them to [0, 1]."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Of 4/3, the widest aspect of a resized crop, as torch computes it in float32: one unit in the last place above the
# nearest. A number, because to copy a tensor from the host to a GPU a step would have to wait.
LOG_OF_WIDEST = 0.28768211603164673


def to_unit(images: Tensor) -> Tensor:
    """uint8 N x H x W x 3 to float32 N x 3 x H x W in [0, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def padded_crop(images: Tensor, pad: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Zero-pad by ``pad``, cut a window of the old size at random, mirror half of them. uint8 N x H x W x 3.

    Each output is a window of the padded image or its mirror; with pad 0 and no flip it is the image.
    """
    n, height, width, _ = images.shape
    on: dict[str, Any] = {"device": images.device, "generator": generator}
    top, left = torch.randint(2 * pad + 1, (n, 1), **on), torch.randint(2 * pad + 1, (n, 1), **on)
    mirrored = torch.rand((n, 1), **on) < 0.5 if flip else torch.zeros_like(top, dtype=torch.bool)
    padded = images.new_zeros(n, height + 2 * pad, width + 2 * pad, 3)
    padded[:, pad : pad + height, pad : pad + width] = images
    cut = cut_rows if images.device.type == "cpu" else cut_pixels
    return cut(padded, top, left, mirrored, (height, width))


def cut_pixels(padded: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, size: tuple[int, int]) -> Tensor:
    """A window of ``size`` of each image N x H x W x 3 at rows ``top`` and columns ``left`` (N x 1), pixel by pixel."""
    rows = top + torch.arange(size[0], device=padded.device)
    columns = left + torch.arange(size[1], device=padded.device)
    columns = torch.where(mirrored, columns.flip(1), columns)
    which = torch.arange(len(padded), device=padded.device)
    return padded[which[:, None, None], rows[:, :, None], columns[:, None, :]]


def cut_rows(padded: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, size: tuple[int, int]) -> Tensor:
    """The same on a CPU, where copying rows as they lie in memory is several times as fast as looking up pixels."""
    height, width = size
    lines = padded.flatten(2).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(lines, (height, 3 * width), axis=(1, 2))[:, :, ::3]
    cut = windows[np.arange(len(lines)), top[:, 0].numpy(), left[:, 0].numpy()]
    turned = np.flatnonzero(mirrored.numpy())
    cut[turned] = torch.from_numpy(cut[turned]).view(-1, height, width, 3).flip(2).flatten(2).numpy()
    return torch.from_numpy(cut).view(-1, height, width, 3)


def resized_crop(images: Tensor, flip: bool, generator: torch.Generator) -> Tensor:
    """A random window of 8 to 100 % of the area and aspect 3/4 to 4/3, brought back to the old size.

    uint8 N x H x W x 3 in and out. Bilinear sampling without antialiasing, which deviates from torchvision's
    RandomResizedCrop on PIL images.
    """
    n, height, width, _ = images.shape
    on: dict[str, Any] = {"device": images.device, "generator": generator}
    area = 0.08 + 0.92 * torch.rand(n, **on)
    aspect = torch.exp((2 * torch.rand(n, **on) - 1) * LOG_OF_WIDEST)
    w, h = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x, y = (2 * torch.rand(n, **on) - 1) * (1 - w), (2 * torch.rand(n, **on) - 1) * (1 - h)
    if flip:
        w = torch.where(torch.rand(n, **on) < 0.5, -w, w)
    theta = torch.zeros(n, 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 0, 2], theta[:, 1, 1], theta[:, 1, 2] = w, x, h, y
    grid = F.affine_grid(theta, [n, 3, height, width], align_corners=False)
    cut = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, "bilinear", "reflection", align_corners=False)
    return cut.round_().to(torch.uint8).permute(0, 2, 3, 1)


def rotated(images: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Rotate each image about its centre by a random angle of ``degrees`` at most to either side.

    uint8 N x H x W x 3 in and out. The nearest pixel, black beyond the edge, as torchvision's RandomRotation.
    """
    n, height, width, _ = images.shape
    angle = (2 * torch.rand(n, device=images.device, generator=generator) - 1) * math.radians(degrees)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.zeros(n, 2, 3, device=images.device)
    # in units of half a side, which differ where images are not square
    theta[:, 0, 0], theta[:, 0, 1] = cos, -sin * (height / width)
    theta[:, 1, 0], theta[:, 1, 1] = sin * (width / height), cos
    grid = F.affine_grid(theta, [n, 3, height, width], align_corners=False)
    turned = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, "nearest", "zeros", align_corners=False)
    return turned.to(torch.uint8).permute(0, 2, 3, 1)

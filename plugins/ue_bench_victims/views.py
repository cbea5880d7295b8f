"""Random views of images for contrastive training: batched, every image with draws of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.4, 0.1
JITTERED, GRAY = 0.8, 0.2  # shares of the images


def view(x: Tensor, area: float, generator: torch.Generator) -> Tensor:
    """Draw a random view of each image; N x 3 x H x W in [0, 1], in and out.

    A window of at least ``area`` of the image and aspect 3/4 to 4/3, brought back to the old size; half are mirrored;
    the colours of 80 % are jittered by up to 0.4, 0.4, 0.4 and 0.1 in random order; 20 % lose their colour. SimCLR's
    setting for CIFAR-10 (Chen et al., 2020, appendix B.9: colours at half strength, no blur), there with an area of
    0.08, in APBench with 0.2.
    """
    x = jitter(window(x, area, generator), generator)
    colourless = torch.rand(len(x), 1, 1, 1, device=x.device, generator=generator) < GRAY
    return torch.where(colourless, gray(x), x)


def window(x: Tensor, least: float, generator: torch.Generator) -> Tensor:
    """Cut a random window of at least ``least`` of each image's area, brought back to the old size; half are mirrored.

    Bilinear. Deviation from torchvision's RandomResizedCrop: windows do not start and end at whole pixels, and one that
    would be longer than a side is cut to it, not drawn again.
    """
    n = len(x)
    on: dict[str, Any] = {"device": x.device, "generator": generator}
    area = least + (1 - least) * torch.rand(n, **on)
    aspect = torch.exp((2 * torch.rand(n, **on) - 1) * math.log(4 / 3))
    w, h = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    left, top = (2 * torch.rand(n, **on) - 1) * (1 - w), (2 * torch.rand(n, **on) - 1) * (1 - h)
    return cut(x, w, h, left, top, torch.rand(n, **on) < 0.5)


def cut(x: Tensor, w: Tensor, h: Tensor, left: Tensor, top: Tensor, mirrored: Tensor) -> Tensor:
    """Cut a window out of each image, brought back to the old size and mirrored where N bools say so; bilinear.

    ``w`` and ``h`` (N) are its sides as shares of the image's, ``left`` and ``top`` (N) where its middle lies from the
    image's, -1 to 1 from edge to edge. Differentiable.
    """
    w = torch.where(mirrored, -w, w)
    theta = torch.zeros(len(x), 2, 3, device=x.device, dtype=x.dtype)
    theta[:, 0, 0], theta[:, 0, 2], theta[:, 1, 1], theta[:, 1, 2] = w, left, h, top
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, "bilinear", "border", align_corners=False)


def jitter(x: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of most images, for each in an order of its own."""
    n = len(x)
    on: dict[str, Any] = {"device": x.device, "generator": generator}
    operations: list[tuple[Callable[[Tensor, Tensor], Tensor], float, float]] = [
        (brightness, 1, BRIGHTNESS), (contrast, 1, CONTRAST), (saturation, 1, SATURATION), (hue, 0, HUE),
    ]  # fmt: skip
    amounts = [mean + spread * (2 * torch.rand(n, **on) - 1) for _, mean, spread in operations]
    order = torch.rand(n, len(operations), **on).argsort(1)
    order[torch.rand(n, **on) >= JITTERED] = -1  # no operation
    x = x.clone()
    for place in range(len(operations)):
        for number, (operation, _, _) in enumerate(operations):
            where = (order[:, place] == number).nonzero()[:, 0]
            x[where] = operation(x[where], amounts[number][where])
    return x


def gray(x: Tensor) -> Tensor:
    """Put the luma in all three channels."""
    weights = torch.tensor(LUMA, device=x.device, dtype=x.dtype).view(3, 1, 1)
    return (x * weights).sum(1, keepdim=True).expand_as(x)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply pixels by ``factor`` (N), in [0, 1]."""
    return (x * factor.view(-1, 1, 1, 1)).clamp(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distance from the mean luma of the image by ``factor`` (N)."""
    return _from(gray(x).mean((1, 2, 3), keepdim=True), x, factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distance from the luma of the pixel by ``factor`` (N)."""
    return _from(gray(x), x, factor)


def _from(base: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    return (base + factor.view(-1, 1, 1, 1) * (x - base)).clamp(0, 1)


def hue(x: Tensor, turn: Tensor) -> Tensor:
    """Move the hue by ``turn`` (N) of the colour circle, value and saturation kept (the hexagon of HSV)."""
    top, low = x.amax(1), x.amin(1)
    chroma = top - low
    red, green, blue = x.unbind(1)
    safe = chroma.clamp(min=1e-8)
    sixths = torch.where(
        top == red, (green - blue) / safe, torch.where(top == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    # Smith (1978): a channel falls from the top to the bottom within a sixth, stays for two, and rises again.
    places = [(sixths + 6 * turn.view(-1, 1, 1) + shift) % 6 for shift in (5, 3, 1)]
    return torch.stack([top - chroma * (2 - (place - 2).abs()).clamp(0, 1) for place in places], 1)

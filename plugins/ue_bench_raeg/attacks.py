"""Simulated attacks between generator and classifiers (RAEG, section on the attack layer), and 8-bit rounding.

The paper names noise, blur, scaling, crop and JPEG and gives no parameters; those here are ours. Tensors are
N x 3 x H x W in [0, 1], and keep their size. One attack and one set of parameters for a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .jpeg import mixture, straight_through
from .recipe import Attack, Recipe


def quantise(x: Tensor) -> Tensor:
    """Clamp and round as an 8-bit image does; the gradient is one inside [0, 1] and zero beyond."""
    return straight_through(x.clamp(0, 1) * 255) / 255


def gaussian_noise(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(x.shape, generator=generator)  # drawn on the CPU: the same on every device
    return x + sigma * noise.to(x)


def gaussian_blur(x: Tensor, kernel: int, sigma: float) -> Tensor:
    """Blur with a separable ``kernel`` x ``kernel`` Gaussian; the edge is repeated outside."""
    place = torch.arange(kernel, dtype=torch.float64) - kernel // 2
    weights = torch.exp(-place.square() / (2 * sigma**2))
    row = (weights / weights.sum()).to(x).expand(3, 1, 1, kernel)
    edge = kernel // 2
    x = F.conv2d(F.pad(x, (edge, edge, 0, 0), mode="replicate"), row, groups=3)
    return F.conv2d(F.pad(x, (0, 0, edge, edge), mode="replicate"), row.transpose(2, 3), groups=3)


def resized(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, (height, width), mode="bilinear")


def scaling(x: Tensor, ratio: float) -> Tensor:
    """Resize to ``ratio`` times the size and back, bilinearly."""
    height, width = x.shape[-2:]
    return resized(resized(x, max(1, round(height * ratio)), max(1, round(width * ratio))), height, width)


def crop(x: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """Cut a window out and bring it back to full size."""
    return resized(x[..., top : top + height, left : left + width], *x.shape[-2:])


def attack(x: Tensor, kind: Attack, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return ``x`` after an attack of ``kind`` with parameters that ``generator``, a CPU one, draws; 8-bit rounded."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

    height, width = x.shape[-2:]
    if kind == "noise":
        x = gaussian_noise(x, uniform(0, recipe.noise_sigma), generator)
    elif kind == "blur":
        kernel = 3 + 2 * int(torch.randint((recipe.blur_kernel - 1) // 2, (), generator=generator))
        x = gaussian_blur(x, kernel, recipe.blur_sigma)
    elif kind == "scaling":
        x = scaling(x, uniform(recipe.scaling_low, recipe.scaling_high))
    elif kind == "crop":
        high, wide = (max(1, round(side * uniform(recipe.crop_low, 1))) for side in (height, width))
        top, left = (int(torch.randint(n + 1, (), generator=generator)) for n in (height - high, width - wide))
        x = crop(x, top, left, high, wide)
    else:
        x = mixture(x, generator, recipe.jpeg_mixed, recipe.jpeg_mask)
    return quantise(x)


def draw(recipe: Recipe, generator: torch.Generator) -> Attack:
    """Draw one of the recipe's attacks."""
    return recipe.attacks[int(torch.randint(len(recipe.attacks), (), generator=generator))]

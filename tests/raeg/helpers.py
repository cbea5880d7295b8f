from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from real import DATA as DATA
from torch import Tensor, nn

from ue_bench.api import ImageSet
from ue_bench_raeg import rdh
from ue_bench_raeg.generator import Generator, SubNetwork


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit_images(count: int, size: tuple[int, int] = (32, 32), seed: int = 0) -> Tensor:
    """Random N x 3 x H x W in [0, 1], float64."""
    return torch.rand(count, 3, *size, generator=generator(seed), dtype=torch.float64)


def randomised(network: Generator, std: float = 0.005, seed: int = 1) -> Generator:
    """Last layers N(0, std^2), so that the network is not the identity."""
    source = generator(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, SubNetwork):
                module.last.weight.copy_(torch.randn(module.last.weight.shape, generator=source) * std)
    return network


def smooth_images(count: int, size: tuple[int, int] = (32, 32), seed: int = 0) -> NDArray[np.uint8]:
    """Slow gradients with values from 0 to 255."""
    corners = np.random.default_rng(seed).uniform(0, 255, (count, 2, 2, 3))
    down, across = np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1])
    rows = corners[:, :1] * (1 - down)[:, None, None] + corners[:, 1:] * down[:, None, None]
    return np.rint(rows[:, :, :1] * (1 - across)[:, None] + rows[:, :, 1:] * across[:, None]).astype(np.uint8)


def patterned_set(count: int = 60, size: tuple[int, int] = (16, 16), classes: int = 3, seed: int = 0) -> ImageSet:
    """Dim gradients with brighter stripes in the middle rows, of which a class has its own period."""
    images = smooth_images(count, size, seed).astype(np.float64) * 0.5 + 40
    labels = np.arange(count) % classes
    stripes = (np.arange(size[1])[None] // (labels[:, None] + 1)) % 2 * 60.0
    images[:, size[0] // 4 : -size[0] // 4] += stripes[:, None, :, None]
    return ImageSet(images.astype(np.uint8), labels, tuple(f"class{c}" for c in range(classes)))


def toy_classifier(classes: int = 3, seed: int = 0) -> nn.Module:
    """A frozen convolutional net of pixels in [0, 1]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, classes)
        )
    return net.eval().requires_grad_(False)


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over images, in dB, of tensors in [0, 1]."""
    return float((-10 * torch.log10((a - b).square().flatten(1).mean(1).clamp(min=1e-12))).mean())


def thresholds_of(marked: NDArray[np.uint8]) -> tuple[int, int]:
    """Of data hidden in an image: that of all layers, and that of the last one."""
    head = rdh._planes(marked)[1]
    return rdh.number(head[-24:-17]), rdh.number(head[-17:-10])

"""The variance-exploding bridge between a clean image and its protected one, on the [-1, 1] scale.

At noise level ``s`` of 0 to ``TOP``, with ``u = s^2 / TOP^2``, an image on the bridge is ``u x' + (1 - u) x`` plus
Gaussian noise of deviation ``s sqrt(1 - u)``: x at 0, x' at the top. Denoising diffusion bridge models (Zhou et al.,
ICLR 2024) with the scalings of BridgePure's release, data variance at both ends ``VARIANCE``, without covariance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ..diffusion.process import Streams, normal

TOP, LEAST = 80.0, 0.002
VARIANCE = 0.25
EDGE = 1e-4  # below the top, where the sampler begins
RHO = 7  # of the spacing of its levels
TIME = 250.0  # the network is told so many times the logarithm of the level

Denoise = Callable[[Tensor, float], Tensor]
"""Takes an image on the bridge and its level; returns the estimate of the clean one."""


def share(s: Tensor) -> Tensor:
    """Return the share ``u`` of the protected image at level ``s``."""
    return (s / TOP) ** 2


def scalings(s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return, at level ``s``, factors on the image kept, on the network's output and input, and the loss's weight."""
    u = share(s)
    total = VARIANCE * (u**2 + (1 - u) ** 2) + s**2 * (1 - u)
    unexplained = (VARIANCE * u) ** 2 + VARIANCE * s**2 * (1 - u)
    return (1 - u) * VARIANCE / total, (unexplained / total).sqrt(), total**-0.5, total / unexplained


def on_bridge(clean: Tensor, protected: Tensor, s: Tensor, noise: Tensor) -> Tensor:
    """Return images on the bridge; ``s`` is one level an image, N x 1 x 1 x 1."""
    u = share(s)
    return u * protected + (1 - u) * clean + s * (1 - u).sqrt() * noise


def levels(count: int) -> list[float]:
    """Return ``count`` levels from just below the top down to the least, and 0."""
    first, last = (TOP - EDGE) ** (1 / RHO), LEAST ** (1 / RHO)
    return [(first + i / (count - 1) * (last - first)) ** RHO for i in range(count)] + [0.0]


def passes(count: int, churn: float) -> int:
    """Return how often the network is asked for an image."""
    return (3 if churn else 2) * count - 1


def sample(denoise: Denoise, protected: Tensor, count: int, churn: float, guidance: float, random: Streams) -> Tensor:
    """Follow the bridge from ``protected`` down to clean images, by Heun's method with ``count`` levels.

    In front of each step, noise is added and taken away over the share ``churn`` of the way to the next level. The
    slope is ``guidance`` times drawn from the protected image. Each image's noise is from its own stream.
    """

    def slope(x: Tensor, s: float) -> Tensor:
        towards = (denoise(x, s) - x) / s**2 - guidance * (protected - x) / (TOP**2 - s**2)
        return -s * towards

    x = protected
    for s, following in pairwise(levels(count)):
        at = s
        if churn:
            at = s + churn * (following - s)
            drift = -2 * (denoise(x, s) - x) / s * (at - s)
            x = x + drift + math.sqrt(2 * s * abs(at - s)) * normal(x, random)
        first = slope(x, at)
        ahead = x + (following - at) * first
        x = ahead if following == 0 else x + (following - at) * (first + slope(ahead, following)) / 2
    return x


def told(s: Tensor) -> Tensor:
    """Return what the network is told of the level ``s``."""
    return TIME * torch.log(s)

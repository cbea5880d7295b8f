"""Noise added to images in one jump and taken away step by step, on the [-1, 1] scale of diffusion models.

Step ``i`` of 0..T-1 has the noise level ``abar_i``, diffusers' ``alphas_cumprod[i]``. Every image draws from a random
stream of its own, so that it does not matter which others it is purified with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ue_bench.api import UserError, check_finite, derive

Pixels = NDArray[np.uint8]
Streams = Sequence[torch.Generator]
Guide = Callable[[Tensor, int], Tensor]
END = 1e-5  # of continuous time, where releases stop: their score is not finite at 0


class Predict(Protocol):
    """A network: noisy images and the step they are at, to what its scheduler expects of it."""

    def __call__(self, x: Tensor, step: int) -> Tensor: ...


def streams(seed: int, where: slice) -> list[torch.Generator]:
    """Return a random stream for each image. On the CPU, so that the noise is the same on every device."""
    return [torch.Generator("cpu").manual_seed(derive(seed, "noise", i)) for i in range(where.start, where.stop)]


def normal(like: Tensor, random: Streams) -> Tensor:
    """Draw standard normal noise of the shape of ``like``, each image's from its own stream."""
    drawn = [torch.randn(like.shape[1:], generator=stream, dtype=like.dtype) for stream in random]
    return torch.stack(drawn).to(like.device)


def to_model(images: Pixels, device: str) -> Tensor:
    """Convert N x H x W x 3 levels to N x 3 x H x W in [-1, 1]."""
    return torch.tensor(images, device=device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def to_levels(x: Tensor) -> Pixels:
    """Convert back to levels, clipped and rounded."""
    return _pixels(((x + 1) * 127.5).round().clamp(0, 255))


def cut_levels(x: Tensor) -> Pixels:
    """Convert back to levels, clipped and cut towards zero."""
    return _pixels(((x + 1) * 127.5).floor().clamp(0, 255))


def wrapped_levels(x: Tensor) -> Pixels:
    """Convert back to levels, cut towards zero; what lies outside comes in again at the other end of 0..255."""
    return _pixels(((x + 1) / 2 * 255).trunc().remainder(256))


def _pixels(levels: Tensor) -> Pixels:
    check_finite(levels, "purified image")
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize ``x`` to ``size``, bilinear and antialiased; it stays as it is when it has that size."""
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)


def steps_down(t: int, count: int | None = None) -> list[int]:
    """Return the steps ``t - 1`` to 0: all, or ``count`` spread evenly, the first and the last among them."""
    if count is None or count >= t:
        return list(range(t - 1, -1, -1))
    return [round(step) for step in np.linspace(t - 1, 0, count)]


def noised(scheduler: Any, x: Tensor, step: int, random: Streams) -> Tensor:
    """Return ``sqrt(abar) * x + sqrt(1 - abar) * noise`` with the noise level of ``step``."""
    where = torch.full((len(x),), step, device=x.device)
    noisy: Tensor = scheduler.add_noise(x, normal(x, random), where)
    return noisy


def ancestral(
    predict: Predict, scheduler: Any, x: Tensor, steps: Sequence[int], random: Streams, guide: Guide | None = None
) -> Tensor:
    """Sample by diffusers' ``DDPMScheduler.step`` from ``steps[0]``, the noise level of ``x``, down to 0.

    ``guide(x, step)`` is added to the mean of a step that starts at ``x``.
    """
    scheduler.set_timesteps(timesteps=list(steps))
    for step in steps:
        following = scheduler.step(predict(x, step), step, x, generator=list(random)).prev_sample
        x = following if guide is None else following + guide(x, step)
    return x


def euler_maruyama(predict: Predict, scheduler: Any, x: Tensor, steps: Sequence[int], random: Streams) -> Tensor:
    """Solve the reverse variance-preserving SDE by Euler and Maruyama, with one step for each of ``steps``.

    ``x + (x / 2 + score) * b + sqrt(b) * noise`` where ``b`` is the integral of beta over the step, the sum of the
    betas that it takes away, and ``score = -noise predicted / sqrt(1 - abar)``. Nothing is clipped on the way.
    """
    below = [*steps[1:], -1]
    for step, following in zip(steps, below, strict=True):
        beta = scheduler.betas[following + 1 : step + 1].sum().to(x)
        score = -predict(x, step)[:, : x.shape[1]] / (1 - scheduler.alphas_cumprod[step]).sqrt().to(x)
        x = x + (x / 2 + score) * beta + beta.sqrt() * normal(x, random)
    return x


def euler_maruyama_in_time(
    predict: Predict, scheduler: Any, x: Tensor, steps: Sequence[int], random: Streams
) -> Tensor:
    """Solve the same SDE with its continuous rate of noise, as DiffPure's and AVATAR's releases do.

    Step i of N is time ``s = (i + 1) / N``; the last one ends at 1e-5. With ``beta(s) = low + (high - low) * s``, where
    low and high are N times the first and the last beta, a step of length h is ``x + (x / 2 + score) * beta(s) * h +
    sqrt(beta(s) * h) * noise``, with ``score = -noise predicted / sqrt(1 - exp(-(high - low) * s^2 / 2 - low * s))``.
    Raises UserError where betas are not those of a linear schedule.
    """
    count = int(scheduler.config.num_train_timesteps)
    if scheduler.config.beta_schedule != "linear":
        raise UserError(
            f"reverse=vp-sde needs noise that grows linearly, not {scheduler.config.beta_schedule}",
            "choose reverse=sde",
        )
    low, high = count * scheduler.config.beta_start, count * scheduler.config.beta_end
    times = [(step + 1) / count for step in steps]
    for step, time, following in zip(steps, times, [*times[1:], END], strict=True):
        taken = (low + (high - low) * time) * (time - following)
        deviation = math.sqrt(-math.expm1(-(high - low) * time**2 / 2 - low * time))
        score = -predict(x, step)[:, : x.shape[1]] / deviation
        x = x + (x / 2 + score) * taken + math.sqrt(taken) * normal(x, random)
    return x


def large_variance(scheduler: Any, step: int) -> float:
    """Return DDPM's large variance of a step: its beta, and for step 0 the variance of the posterior of step 1.

    That of step 0 belongs to no noise, which is not added there, but to what is scaled by it.
    """
    if step:
        return float(scheduler.betas[step])
    levels = scheduler.alphas_cumprod
    return float(scheduler.betas[1] * (1 - levels[0]) / (1 - levels[1]))

"""The colour branch of DUNE: a particle swarm that looks for one RGB shift for all images of a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from ue_bench.api import Context, ssim

from .pgd import to_levels, to_unit
from .quantise import quantise

PARTICLES, ROUNDS = 10, 10
EVALUATIONS = PARTICLES * ROUNDS
INERTIA, PULL = 0.5, 0.3  # of the velocity; towards a particle's best and everybody's
LEAST_PSNR, LEAST_SSIM = 20.0, 0.8

Shift = NDArray[np.float64]


class Uniform(Protocol):
    """What draws numbers in [0, 1): a generator of NumPy, old or new."""

    def random(self, size: tuple[int, int]) -> Shift: ...


def swarm(objective: Callable[[Shift], float], width: float, rng: Uniform) -> tuple[Shift, float]:
    """Look for the three numbers with the smallest ``objective``; return the best that was evaluated, and its value.

    Ten particles start within ``width`` either way with velocities of a tenth of that. In each of ten rounds all are
    evaluated, and then move by half their velocity, 0.3 of the way to their own best and 0.3 of that to everybody's.
    """
    positions = (2 * rng.random((PARTICLES, 3)) - 1) * width
    velocities = (2 * rng.random((PARTICLES, 3)) - 1) * width / 10
    own, values = positions.copy(), np.full(PARTICLES, np.inf)
    for _ in range(ROUNDS):
        found = np.array([objective(position) for position in positions])
        better = found < values
        own[better], values[better] = positions[better], found[better]
        best = own[values.argmin()]
        velocities = INERTIA * velocities + PULL * (own - positions) + PULL * (best - positions)
        positions = positions + velocities
    return own[values.argmin()].copy(), float(values.min())


def fitted(
    images: NDArray[np.uint8],
    wanted: int,
    networks: Sequence[nn.Module],
    width: float,
    ctx: Context,
    batch: int,
    label: int,
) -> Shift:
    """Return the shift that best takes ``images``, all of the class ``label``, to the class ``wanted``."""

    def objective(shift: Shift) -> float:
        parts = [cost(images[start : start + batch], shift, wanted, networks, ctx).sum() for start in starts]
        return float(sum(parts)) / len(images)

    starts = range(0, len(images), batch)
    return swarm(objective, width, ctx.rng("swarm", label))[0]


@torch.no_grad()
def cost(
    images: NDArray[np.uint8], shift: Shift, wanted: int, networks: Sequence[nn.Module], ctx: Context
) -> NDArray[np.float64]:
    """Return of each image what a ``shift`` costs: cross-entropy of the class ``wanted``, and what quality lacks."""
    x = to_unit(images, ctx.device)
    moved = (x + torch.from_numpy(shift).float().to(ctx.device)[:, None, None]).clamp(0, 1)
    target = torch.full((len(x),), wanted, device=ctx.device)
    losses = torch.zeros(len(x), device=ctx.device)
    for network in networks:
        with ctx.autocast():
            logits = network(moved)
        losses += F.cross_entropy(logits.float(), target, reduction="none")
    errors = (moved - x).square().mean((1, 2, 3)).clamp(min=1e-12)
    penalties = (LEAST_PSNR + 10 * errors.log10()).clamp(min=0)
    lacking = np.maximum(LEAST_SSIM - ssim(images, quantise(to_levels(moved))), 0)
    total: NDArray[np.float64] = (losses / len(networks) + penalties).double().cpu().numpy() + lacking
    return total

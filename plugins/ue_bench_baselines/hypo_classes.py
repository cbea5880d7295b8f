"""HYPO's perturbations of a class: against all images of the set, or at random."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ue_bench.api import Context, ImageSet

from .pgd import to_unit

TINY = 1e-10  # added to a norm before it divides


def universal(
    network: Callable[[Tensor], Tensor],
    data: ImageSet,
    wanted: int,
    ctx: Context,
    norm: str,
    eps: float,
    step: float,
    steps: int,
    batch: int,
) -> Tensor:
    """Return the perturbation 3 x H x W, within ``eps``, that makes ``network`` see class ``wanted`` in any image.

    Each step is one of gradient descent on the mean cross-entropy of ``wanted`` over the next ``batch`` images of the
    set, of all classes, in an order that is drawn for each pass; what does not fill a batch waits for the next pass.
    ``norm=l2``: of length ``step`` along the gradient, then scaled back into the ball; ``linf``: signed, then cut.
    Gradients are taken at images within [0, 1]; the perturbation itself knows no box.
    """
    size = min(batch, len(data))
    per_pass = len(data) // size
    order = np.arange(len(data))
    target = torch.full((size,), wanted, device=ctx.device)
    perturbation = torch.zeros(3, *data.size, device=ctx.device)
    for t in range(steps):
        turn, place = divmod(t, per_pass)
        if place == 0:
            order = ctx.rng("universal", wanted, turn).permutation(len(data))
        x = to_unit(data.images[np.sort(order[place * size : (place + 1) * size])], ctx.device)
        p = perturbation.clone().requires_grad_()
        with ctx.autocast():
            logits = network((x + p).clamp(0, 1))
        [gradient] = torch.autograd.grad(F.cross_entropy(logits.float(), target), p)
        if norm == "linf":
            perturbation = (perturbation - step * gradient.sign()).clamp(-eps, eps)
        else:
            perturbation = perturbation - gradient * (step / (gradient.norm() + TINY))
            perturbation = perturbation * (eps / perturbation.norm().clamp_min(eps))
        ctx.report(t + 1, steps, f"perturbation of class {wanted + 1} of {data.num_classes}")
    return perturbation


def random(size: tuple[int, int], norm: str, eps: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a perturbation H x W x 3: uniform within ``eps`` for ``linf``, of L2 norm ``eps`` and any direction else."""
    if norm == "linf":
        return rng.uniform(-eps, eps, (*size, 3))
    drawn = rng.standard_normal((*size, 3))
    return drawn * (eps / np.linalg.norm(drawn))

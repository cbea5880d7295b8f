"""Steps that go by several states of a network at once, as SEP and DUNE take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, UserError

from .pgd import boxed

Gradient = Callable[[int, Tensor], Tensor]
"""``gradient(state, p)``: that of each image's own loss under a state, at images ``p``, N x 3 x H x W."""


def further_on(
    labels: NDArray[np.int64], offset: int, name: str, of: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return for N labels the class ``offset`` further on, of those that have images; the next where that is its own.

    ``of`` are the labels of the images that count: these by default. Raises UserError, with ``name``, when they are of
    one class.
    """
    present = np.unique(labels if of is None else of)
    if len(present) < 2:
        raise UserError(f"{name} needs images of two classes", "each is moved towards another one")
    rank = np.searchsorted(present, labels)
    wanted: NDArray[np.int64] = present[(rank + (offset % len(present) or 1)) % len(present)]
    return wanted


def cross_entropy_gradient(networks: Sequence[nn.Module], targets: Tensor, ctx: Context) -> Gradient:
    """Return the gradient, under each of ``networks``, of the cross-entropy of ``targets``."""

    def gradient(state: int, p: Tensor) -> Tensor:
        p = p.detach().requires_grad_()
        with ctx.autocast():
            logits = networks[state](p)
        # A sum over images: an image's step must not depend on how many others are in its batch.
        [gradients] = torch.autograd.grad(F.cross_entropy(logits.float(), targets, reduction="sum"), p)
        return gradients

    return gradient


def moved(x: Tensor, perturbation: Tensor, way: Tensor, eps: float, step: float) -> Tensor:
    """Move a perturbation, cut to the box of ``x``, a signed step against ``way``: within ``eps``, not cut again."""
    return boxed(x, perturbation).sub_(way.sign(), alpha=step).clamp_(-eps, eps)


def descend_mean(x: Tensor, gradient: Gradient, states: int, eps: float, step: float, steps: int) -> Tensor:
    """Take signed steps down the mean gradient of ``states``, from images ``x`` themselves.

    Returns the perturbation: within ``eps``, not yet cut to [0, 1].
    """
    perturbation = torch.zeros_like(x)
    for _ in range(steps):
        start = x + boxed(x, perturbation)
        perturbation = moved(x, perturbation, sum_of(gradient(state, start) for state in range(states)), eps, step)
    return perturbation


def sum_of(gradients: Iterator[Tensor]) -> Tensor:
    """Sum tensors, one at a time in memory."""
    total = next(gradients).clone()
    for gradient in gradients:
        total += gradient
    return total

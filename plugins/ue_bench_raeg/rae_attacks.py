"""Adversarial examples that reversible protectors start from: IGSM and C&W, against a frozen classifier of pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ue_bench_baselines.pgd import boxed, descend

Network = Callable[[Tensor], Tensor]
CHECK = 5  # iterations of C&W between looks at what the rounded images do


def igsm(network: Network, x: Tensor, y: Tensor, eps: float, step: float, iterations: int) -> Tensor:
    """Attack by the basic iterative method (Kurakin et al., 2017): signed steps up the true class's loss in ``eps``.

    ``x`` N x 3 x H x W in [0, 1]; gives images in [0, 1].
    """

    def objective(p: Tensor, t: int) -> Tensor:
        return -F.cross_entropy(network(p).float(), y, reduction="none")

    perturbation, _ = descend(x, torch.zeros_like(x), objective, eps, step, iterations)
    return x + boxed(x, perturbation)


def cw(
    network: Network,
    x: Tensor,
    y: Tensor,
    kappa: float,
    learning_rate: float,
    iterations: int,
    searches: int,
    first: float,
) -> Tensor:
    """Attack as Carlini and Wagner (2017), L2: the nearest image tried that the network gets wrong by ``kappa``.

    Minimises |x' - x|^2 + c max(Z_y - max_other Z + kappa, 0) over w, x' = (tanh w + 1) / 2, with Adam; c starts at
    ``first`` and is found by so many steps of binary search. Success is that of the image rounded to 8 bits. An image
    for which there is none is the last one tried, rounded.
    """
    low, high = torch.zeros(len(x), device=x.device), torch.full((len(x),), torch.inf, device=x.device)
    weight = torch.full_like(low, first)
    best, nearest = x.clone(), torch.full_like(low, torch.inf)
    start = torch.atanh((2 * x - 1) * (1 - 1e-6))
    true_class = F.one_hot(y, network(x[:1]).shape[1]).bool()

    def margin(image: Tensor) -> Tensor:
        logits = network(image).float()
        lead: Tensor = logits[true_class] - logits.masked_fill(true_class, -torch.inf).amax(1)
        return lead

    for _ in range(searches):
        w = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([w], learning_rate)
        reached = torch.zeros_like(low, dtype=torch.bool)
        for t in range(iterations):
            image = (torch.tanh(w) + 1) / 2
            distance = (image - x).square().flatten(1).sum(1)
            # A sum, not a mean: an image's step must not depend on how many others are in its batch.
            loss = distance + weight * (margin(image) + kappa).clamp(min=0)
            optimizer.zero_grad(set_to_none=True)
            [w.grad] = torch.autograd.grad(loss.sum(), [w])
            optimizer.step()
            if (t + 1) % CHECK == 0 or t + 1 == iterations:
                with torch.no_grad():
                    rounded = ((torch.tanh(w) + 1) / 2 * 255).round() / 255
                    wrong = margin(rounded) <= -max(kappa, 1e-6)
                    away = (rounded - x).square().flatten(1).sum(1)
                    nearer = wrong & (away < nearest)
                    best = torch.where(nearer[:, None, None, None], rounded, best)
                    nearest = torch.where(nearer, away, nearest)
                    reached |= wrong
        with torch.no_grad():
            best = torch.where(nearest.isinf()[:, None, None, None], rounded, best)
        high = torch.where(reached, torch.minimum(high, weight), high)
        low = torch.where(reached, low, torch.maximum(low, weight))
        weight = torch.where(high.isinf(), weight * 10, (low + high) / 2)
    return best

"""The linear surrogate of PIL and the descent of its noise, all of it in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, DivergenceCheck, ImageSet, derive

from .pgd import to_unit


def trained(data: ImageSet, ctx: Context, epochs: int, batch: int, rate: float) -> Tensor:
    """Train two dense layers without bias on ``data``; return their product, classes x values of an image.

    Batches are in the order of the set, or shuffled in every epoch where that goes class by class. Raises Diverged.
    """
    values, classes = data.images[0].size, data.num_classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(ctx.seed, "linear surrogate"))
        network = nn.Sequential(nn.Linear(values, classes, bias=False), nn.Linear(classes, classes, bias=False))
    network.to(ctx.device)
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9)
    labels = torch.tensor(data.labels, device=ctx.device)
    by_class = bool((data.labels[1:] >= data.labels[:-1]).all())
    divergence = DivergenceCheck(epochs * -(-len(data) // batch), "the linear surrogate", "a lower rate")
    steps = 0
    for epoch in ctx.progress(range(epochs), "linear surrogate"):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
        order = ctx.rng("order", epoch).permutation(len(data)) if by_class else None
        for start in range(0, len(data), batch):
            where = slice(start, start + batch) if order is None else order[start : start + batch]
            x = to_unit(data.images[where], ctx.device).flatten(1)
            loss = F.cross_entropy(network(x), labels[where])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            divergence.add(loss)
            steps += 1
        divergence.check(steps, network)
    first, second = (weight.detach() for weight in network.parameters())
    return second @ first


def gradient(matrix: Tensor, clean: Tensor, noise: Tensor, labels: Tensor, weight: float) -> Tensor:
    """Return the gradient by ``noise``, N x D, of each image's own ``loss``.

    ``clean`` are the logits M x, N x C, of the images; ``matrix`` is M, C x D.
    """
    own = noise @ matrix.T
    classes = matrix.shape[0]
    told = own.softmax(1) - F.one_hot(labels, classes)
    silent = (clean - own).softmax(1) - 1 / classes
    return (weight * told - (1 - weight) * silent) @ matrix


def loss(matrix: Tensor, clean: Tensor, noise: Tensor, labels: Tensor, weight: float) -> Tensor:
    """Return for N images ``weight`` CE(M n, y) + (1 - ``weight``) KL(uniform || softmax M (x - n))."""
    own = noise @ matrix.T
    left = (clean - own).log_softmax(1)
    divergence = -left.mean(1) - math.log(matrix.shape[0])
    return weight * F.cross_entropy(own, labels, reduction="none") + (1 - weight) * divergence


def descend(
    matrix: Tensor, x: Tensor, labels: Tensor, start: Tensor, eps: float, step: float, steps: int, weight: float
) -> Tensor:
    """Take signed steps from the noise ``start`` down ``loss``, within ``eps`` in Linf, for images ``x``, N x D.

    Nothing is cut to [0, 1] on the way. Returns the noise, which is to be subtracted from the images.
    """
    clean = x @ matrix.T
    noise = start
    for _ in range(steps):
        signs = gradient(matrix, clean, noise, labels, weight).sign()
        noise = noise.sub(signs, alpha=step).clamp(-eps, eps)
    return noise

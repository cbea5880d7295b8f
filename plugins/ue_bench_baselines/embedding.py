"""What a classifier's last linear layer is given, its means over classes, and that layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, ImageSet, UserError

from .pgd import to_unit


def last_linear(network: nn.Module, name: str) -> nn.Linear:
    """Return the last linear layer of ``network``. Raises UserError, with ``name``, when it has none."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"{name} has no linear layer", "choose a surrogate that ends in one")
    return linear[-1]


def embedding(network: nn.Module, name: str, ctx: Context) -> Callable[[Tensor], Tensor]:
    """Return a function to the input of ``network``'s last linear layer: N x 3 x H x W in [0, 1] to N x D, float32.

    Raises UserError, with ``name``, when it has none.
    """
    seen: list[Tensor] = []
    last_linear(network, name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    def embed(x: Tensor) -> Tensor:
        with ctx.autocast():
            network(x)
        embedded = seen.pop().flatten(1).float()
        seen.clear()
        return embedded

    return embed


def centroids(embed: Callable[[Tensor], Tensor], data: ImageSet, ctx: Context, batch: int) -> Tensor:
    """Return every class's mean embedding, classes x D, float32 on the device; infinite where it has no images."""
    sums: Tensor | float = 0.0
    labels = torch.tensor(data.labels, device=ctx.device)
    with torch.no_grad():
        for start in ctx.progress(range(0, len(data), batch), "embed"):
            where = slice(start, start + batch)
            members = F.one_hot(labels[where], data.num_classes).double()
            sums = sums + members.T @ embed(to_unit(data.images[where], ctx.device)).double()
    assert isinstance(sums, torch.Tensor)  # a training set has images
    counts = torch.bincount(labels, minlength=data.num_classes)[:, None]
    return torch.where(counts > 0, sums / counts, torch.inf).float()
